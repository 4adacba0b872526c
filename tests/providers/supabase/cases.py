"""Everything recorded of Supabase."""

from tests.providers.case import Case
from tests.providers.supabase.deliveries import SAMPLES, SOURCE, TOKEN

CASE = Case(source=SOURCE, secret=TOKEN, samples=SAMPLES, signs_the_body=False)
