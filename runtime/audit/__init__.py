"""The settings of the servers, looked at for what could be lost by them."""
