"""Sends one form to a box's pages, in this process, for `killer.py` to strike in the middle of it.

Usage: python form.py STATE PATH FORM COOKIES, the last two as JSON; prints the status.
"""

import json
import sys

from edge.config import Config
from web import clinic

state, path, form, cookies = sys.argv[1:]
client = clinic.create(Config(state=state)).test_client()
for name, value in json.loads(cookies).items():
    client.set_cookie(name, value)
print(client.post(path, data=json.loads(form), headers={"Sec-Fetch-Site": "same-origin"}).status_code)
