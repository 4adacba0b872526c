"""Everything recorded of Mailgun."""

from tests.providers.case import Case
from tests.providers.mailgun.deliveries import KEY, SAMPLES, SOURCE

CASE = Case(source=SOURCE, secret=KEY, samples=SAMPLES, signs_the_body=False)
