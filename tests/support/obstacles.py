"""What a shop's database may have that refuses what we write."""

from tests.support.shops import Shop

SHADOW = """
CREATE SCHEMA shadow;
CREATE FUNCTION shadow.pg_notify(text, text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
  RAISE EXCEPTION 'too many notifications in the NOTIFY queue' USING ERRCODE = '%s'; END $$;
"""


async def shadowed(shop: Shop, code: str = "54000") -> None:
    name = await shop.connection.fetchval("SELECT current_database()")
    await shop.connection.execute(
        f"{SHADOW % code} ALTER DATABASE {name} SET search_path = shadow, pg_catalog, public"
    )


async def check(shop: Shop) -> None:
    await shop.connection.execute(
        f"ALTER TABLE product_orders ADD CONSTRAINT c CHECK (\"{shop.spelling.name('external_status')}\" <> 'processing')"
    )


async def key(shop: Shop) -> None:
    await shop.connection.execute(
        "CREATE TABLE states (word varchar(30) PRIMARY KEY); INSERT INTO states VALUES ('sent'), ('completed'), ('failed'); "
        f'ALTER TABLE product_orders ADD CONSTRAINT c FOREIGN KEY ("{shop.spelling.name("external_status")}") '
        "REFERENCES states DEFERRABLE INITIALLY DEFERRED"
    )


async def domain(shop: Shop) -> None:
    name = shop.spelling.name("external_status")
    await shop.connection.execute(
        "CREATE DOMAIN state AS varchar(30) CONSTRAINT c CHECK (VALUE <> 'processing'); "
        f'ALTER TABLE product_orders ALTER "{name}" DROP DEFAULT, ALTER "{name}" TYPE state'
    )


async def raising(shop: Shop, code: str = "P0001") -> None:
    await trigger(shop, f"RAISE EXCEPTION USING ERRCODE = '{code}'")


async def keeping(shop: Shop) -> None:
    await trigger(shop, "RETURN NULL")


async def trigger(shop: Shop, does: str) -> None:
    name = shop.spelling.name("external_status")
    await shop.connection.execute(
        f"CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.\"{name}\" = 'processing' THEN {does}; END IF; "
        "RETURN NEW; END $$; CREATE TRIGGER c BEFORE UPDATE ON product_orders FOR EACH ROW EXECUTE FUNCTION t()"
    )
