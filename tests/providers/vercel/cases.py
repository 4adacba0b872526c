"""Everything recorded of Vercel."""

from providers.port import Secret
from tests.providers.case import Case
from tests.providers.vercel.deliveries import SAMPLES, SOURCE

CASE = Case(source=SOURCE, secret=Secret("VERCEL_WEBHOOK_SECRET", b"mysecret"), samples=SAMPLES)
