-- A shop's tables as they run: camelCase beside snake_case in one table, several tenants in it.
CREATE TABLE tenant (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name varchar(120) NOT NULL, code varchar(40) UNIQUE,
  "ownerUserId" uuid, "isActive" boolean DEFAULT true, "createdAt" timestamptz NOT NULL DEFAULT now(), "updatedAt" timestamptz DEFAULT now());
CREATE TABLE tenant_domain (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), "tenantId" uuid NOT NULL, domain varchar NOT NULL UNIQUE,
  type varchar, "isPrimary" boolean NOT NULL DEFAULT false, "isVerified" boolean NOT NULL DEFAULT false,
  "createdAt" timestamptz NOT NULL DEFAULT now(), "updatedAt" timestamptz NOT NULL DEFAULT now());
CREATE TABLE users (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), "tenantId" uuid, email varchar, username varchar, password varchar,
  balance numeric(12,2) NOT NULL DEFAULT 0, "overdraftLimit" numeric(12,2) DEFAULT 0);
CREATE TABLE product_packages (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), "tenantId" uuid NOT NULL, "publicCode" int, name varchar(160),
  description text, "imageUrl" varchar, "basePrice" numeric(10,2) NOT NULL DEFAULT 0, capital numeric(10,2) NOT NULL DEFAULT 0,
  "isActive" boolean NOT NULL DEFAULT true, product_id uuid);
CREATE SEQUENCE product_orders_orderno_seq;
CREATE TABLE product_orders (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  "tenantId" uuid NULL, "orderNo" int NULL DEFAULT nextval('product_orders_orderno_seq'),
  "productId" uuid NULL, "packageId" uuid NULL, quantity int NOT NULL DEFAULT 1,
  "sellPriceCurrency" varchar(10) NOT NULL DEFAULT 'USD', "sellPriceAmount" numeric(10,2) NOT NULL DEFAULT 0,
  price numeric(10,2) NOT NULL DEFAULT 0, "costCurrency" varchar(10) NOT NULL DEFAULT 'USD',
  "costAmount" numeric(10,2) NOT NULL DEFAULT 0, "profitAmount" numeric(10,2) NOT NULL DEFAULT 0,
  status varchar NOT NULL DEFAULT 'pending', "userId" uuid NULL REFERENCES users(id),
  "userIdentifier" varchar NULL, "extraField" varchar NULL,
  "providerId" varchar NULL, "externalOrderId" varchar NULL, "externalStatus" varchar NOT NULL DEFAULT 'not_sent',
  attempts int NOT NULL DEFAULT 0, "lastMessage" varchar(250) NULL, "manualNote" text NULL,
  notes jsonb NOT NULL DEFAULT '[]', "pinCode" varchar(120) NULL,
  "sentAt" timestamptz NULL, "lastSyncAt" timestamptz NULL, "completedAt" timestamptz NULL, "durationMs" int NULL,
  "fxUsdTryAtApproval" numeric(12,6), "sellTryAtApproval" numeric(12,2), "costTryAtApproval" numeric(12,2),
  "profitTryAtApproval" numeric(12,2), "profitUsdAtApproval" numeric(12,2), "approvedAt" timestamptz,
  "approvedLocalDate" date, "approvedLocalMonth" char(7), "fxCapturedAt" timestamptz, "fxSource" varchar(50),
  "fxLocked" boolean NOT NULL DEFAULT false, "createdAt" timestamptz NOT NULL DEFAULT now(),
  "providerMessage" text NULL, "notesCount" int NOT NULL DEFAULT 0,
  "orderUuid" varchar(64), origin varchar(20) NOT NULL DEFAULT 'panel',
  "sellUsdAtOrder" numeric(12,4), "costUsdAtOrder" numeric(12,4), "profitUsdAtOrder" numeric(12,4),
  "placedByDistributorId" uuid, "distributorCapitalUsdAtOrder" numeric(18,6), "distributorSellUsdAtOrder" numeric(18,6),
  "distributorProfitUsdAtOrder" numeric(18,6), "fxUsdToDistAtOrder" numeric(18,6), "distCurrencyCodeAtOrder" varchar(10),
  provider_referans varchar(255),
  root_order_id uuid REFERENCES product_orders(id) ON DELETE SET NULL, mode varchar(50), cost_source varchar(50),
  cost_price_usd numeric(12,4), chain_path text,
  cost_usd_at_order numeric(12,4), sell_usd_at_order numeric(12,4), profit_usd_at_order numeric(12,4),
  cost_try_at_order numeric(12,2), sell_try_at_order numeric(12,2), profit_try_at_order numeric(12,2), fx_usd_try_at_order numeric(12,6));
CREATE INDEX idx_orders_tenant ON product_orders("tenantId");
CREATE UNIQUE INDEX uq_orders_tenant_order_no ON product_orders("tenantId","orderNo") WHERE "orderNo" IS NOT NULL;
CREATE INDEX idx_orders_created_at ON product_orders("createdAt");
CREATE INDEX idx_orders_provider_referans ON product_orders(provider_referans);
CREATE INDEX idx_product_orders_root_order_id ON product_orders(root_order_id);
CREATE TABLE order_dispatch_log (id bigserial PRIMARY KEY, order_id uuid NOT NULL REFERENCES product_orders(id) ON DELETE CASCADE,
  action varchar(50) NOT NULL, result varchar(50), message text, payload_snapshot jsonb, created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE package_routing (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), "tenantId" uuid NOT NULL, package_id uuid NOT NULL,
  mode varchar(10) NOT NULL DEFAULT 'manual', "primaryProviderId" varchar NULL, "fallbackProviderId" varchar NULL,
  "providerType" varchar(32) NOT NULL DEFAULT 'manual', "codeGroupId" uuid, "internalTenantId" uuid, "internalApiUserId" uuid);
CREATE TABLE integrations (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), "tenantId" uuid NOT NULL, name varchar(120) NOT NULL,
  provider varchar(20) NOT NULL, scope varchar(10) NOT NULL DEFAULT 'tenant', "baseUrl" varchar(255), "apiToken" varchar(255),
  kod varchar(120), sifre varchar(120), enabled boolean NOT NULL DEFAULT true, balance numeric(18,3), "balanceUpdatedAt" timestamptz,
  debt numeric(18,3) DEFAULT 0, debt_updated_at timestamp, "createdAt" timestamptz NOT NULL DEFAULT now(), UNIQUE("tenantId", name));
CREATE TABLE package_mappings (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), "tenantId" uuid NOT NULL, our_package_id varchar NOT NULL,
  provider_api_id varchar NOT NULL, provider_package_id varchar NOT NULL, meta jsonb);
CREATE TABLE package_costs (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), "tenantId" uuid NOT NULL, package_id uuid NOT NULL,
  "providerId" varchar NOT NULL, "costCurrency" varchar(10) DEFAULT 'USD', "costAmount" numeric(10,2) DEFAULT 0);
-- What a shop has of its own: a wallet's movements, each told for ever, and nothing that would keep one from being told twice.
CREATE TABLE wallet_entries (id bigserial PRIMARY KEY, "userId" uuid NOT NULL REFERENCES users(id), order_id uuid NOT NULL,
  kind varchar(20) NOT NULL, amount numeric(12,2) NOT NULL, told_by varchar(40) NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
