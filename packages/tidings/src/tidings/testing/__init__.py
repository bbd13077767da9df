"""Tests of users: a service in memory, waiting for what a publish caused."""
