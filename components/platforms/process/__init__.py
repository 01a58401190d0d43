"""The process platform: services are supervisord programs on this machine, on loopback, in one lab directory.

Import from the modules: the entry points among them start with every service, and must not load all of Pulumi.
"""
