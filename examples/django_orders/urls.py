"""The admin, with its page of dead letters: `python manage.py runserver`, then /admin/."""

from django.contrib import admin
from django.urls import path

urlpatterns = [path("admin/", admin.site.urls)]
