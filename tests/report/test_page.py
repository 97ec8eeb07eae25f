"""The page's text: one file, no network, nothing of the data taken for markup."""

import base64
import io
import json
import re

import numpy as np
from PIL import Image

from scarce_jax.data.schema import IGNORE
from scarce_jax.report.gallery import mask_layer
from scarce_jax.report.page import page
from tests.report.names import EVIL


def test_the_data_arrive_and_cannot_end_their_element(content):
    text = page(content)
    found = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert found["runs"][0]["classes"][1] == EVIL and found["galleries"] == content["galleries"]
    # JSON has no NaN; what was not finite is null.
    assert found["runs"][0]["curves"]["first"]["net/grad_norm"][1] == [None, None, None]
    assert "data-evil onerror" in text and "<img src=x" not in text
    assert text.count("</script>") == text.count("<script") == 2


def test_the_page_asks_for_nothing_outside(content):
    text = page(content)
    assert "default-src 'none'" in text
    assert set(re.findall(r"https?://[^\"\s]*", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\b(?:import|fetch|XMLHttpRequest|@import)\b", text)


def test_no_place_of_the_template_is_left(content):
    text = page({**content, "runs": [{**run, "name": "a"} for run in content["runs"]]})
    start, end = text.index('id="data">'), text.index("</script>")
    assert "{{data}}" in text[start:end] and "{{" not in text[:start] + text[end:]


def test_the_overlay_shows_the_image_where_a_mask_is_void_or_background():
    palette = ((0, 0, 0), (200, 0, 0))
    layer = mask_layer("prediction", np.array([[0, 1, IGNORE]], np.uint8), palette)
    shown = Image.open(io.BytesIO(base64.b64decode(layer["mask"].partition(",")[2]))).convert("RGBA")
    assert np.asarray(shown).tolist() == [[[0, 0, 0, 0], [200, 0, 0, 255], [0, 0, 0, 0]]]
