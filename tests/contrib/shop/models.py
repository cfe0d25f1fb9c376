"""The shop's tables as its Django maps them, all unmanaged."""

from django.db import models


class User(models.Model):
    id = models.UUIDField(primary_key=True)
    balance = models.DecimalField(max_digits=12, decimal_places=2)

    class Meta:
        managed = False
        db_table = "users"


class ProductOrder(models.Model):
    id = models.UUIDField(primary_key=True)
    tenant_id = models.UUIDField(null=True, db_column="tenantId")
    package_id = models.UUIDField(null=True, db_column="packageId")
    user = models.ForeignKey(User, models.DO_NOTHING, null=True, db_column="userId")
    price = models.DecimalField(max_digits=10, decimal_places=2)
    status = models.CharField(max_length=50)
    provider_id = models.CharField(max_length=255, null=True, db_column="providerId")
    external_status = models.CharField(max_length=30, db_column="externalStatus")
    sent_at = models.DateTimeField(null=True, db_column="sentAt")
    pin_code = models.CharField(max_length=120, null=True, db_column="pinCode")
    note = models.CharField(max_length=250, null=True, db_column="lastMessage")
    provider_referans = models.CharField(max_length=255, null=True)
    root_order_id = models.UUIDField(null=True)
    chain_path = models.TextField(null=True)

    class Meta:
        managed = False
        db_table = "product_orders"


class WalletEntry(models.Model):
    user = models.ForeignKey(User, models.DO_NOTHING, db_column="userId")
    order_id = models.UUIDField()
    kind = models.CharField(max_length=20)
    amount = models.DecimalField(max_digits=12, decimal_places=2)
    told_by = models.CharField(max_length=40)

    class Meta:
        managed = False
        db_table = "wallet_entries"
