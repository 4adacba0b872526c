"""OdooOps itself: gates, jobs, operators and SSOT speak in events. They reach the log by the broker, never by HTTP."""

from providers.odooops.normalize import normalize
from providers.port import Provider

PROVIDER = Provider(name="odooops", verify=None, normalize=normalize, compose=None)
