"""The settings of the tests' Django project: the relevant parts of the running shop's."""

import os

from tests.contrib.address import database_of

SECRET_KEY = "only-for-tests"
USE_TZ = os.environ.get("SHOP_USE_TZ", "1") == "1"
TIME_ZONE = "Europe/Istanbul"
ALLOWED_HOSTS = ["testserver"]
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "order_monitor.contrib.django",
    "tests.contrib.shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "tests.contrib.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DATABASES = {
    "default": database_of(os.environ.get("SHOP_DSN", "postgresql://nobody@nowhere/none")),
    "other": database_of(os.environ.get("SHOP_DSN", "postgresql://nobody@nowhere/none")),
}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "loggers": {"order_monitor": {"level": "INFO", "handlers": ["stderr"]}},
}
ORDER_MONITOR = {
    "ORDER_MODEL": "shop.ProductOrder",
    "HANDLER": os.environ.get("SHOP_HANDLER", "tests.contrib.shop.money.handle"),
    "MONEY_MODELS": ["shop.User"],
    "FIRST_PAUSE": 0.1,
    "POLL": 0.5,
    "CONFIG": os.environ.get("SHOP_MONITOR_TOML"),
    "WEBHOOK_SECRET": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
}
CELERY_BROKER_URL = os.environ.get("SHOP_REDIS", "")
