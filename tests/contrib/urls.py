"""The project's URLs: the admin, and the webhook's receiver."""

from django.contrib import admin
from django.urls import path

from order_monitor.contrib.django.webhook import receive

urlpatterns = [path("admin/", admin.site.urls), path("hooks/orders", receive)]
