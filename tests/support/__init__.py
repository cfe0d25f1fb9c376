"""What tests share: shops, clocks, servers, processes. No test module imports another."""
