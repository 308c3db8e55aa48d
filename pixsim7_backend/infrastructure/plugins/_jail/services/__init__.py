"""The platform's own services for jails: what needs neither a database nor users."""
