"""The explorer's server: who may ask, and that its answers are the library's own."""

import io
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from explored import PORT, TOKEN, array, client_of, fitted, opened_session, packed
from mogul import InputError
from mogul.app import Session, create_app
from mogul.app.guard import MOST_BYTES
from mogul.app.serve import beside, prepare
from mogul.app.uploads import decode_upload
from mogul.tasks import characteristic, find_outliers, inpaint, percentile_of

REFUSED = 403


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    path = tmp_path_factory.mktemp("app") / "digits.mogul"
    return opened_session(
        fitted(path, "digits --model mfa --components 12 --rank 3 --passes 3 --json")
    )


@pytest.fixture(scope="module")
def client(session):
    return client_of(session)


# --- who may ask ---------------------------------------------------------------------------------


def test_without_the_token_nothing_is_answered(session):
    for path in ("/", "/api/model", "/static/main.js", "/api/nothing"):
        for token in ("", "wrong", TOKEN + "x", "é"):
            with client_of(session, None) as stranger:
                found = stranger.get(path, params={"token": token} if token else {})
                assert found.status_code == REFUSED, path
                assert "token" in found.text


def test_the_address_gives_a_cookie_that_other_sites_cannot_use(session):
    visitor = client_of(session, None)
    first = visitor.get("/", params={"token": TOKEN})
    assert first.status_code == 200
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    visitor.cookies.set(f"mogul-{PORT}", TOKEN)
    assert visitor.get("/api/model").status_code == 200
    assert visitor.get("/static/main.js").status_code == 200


@pytest.mark.parametrize(
    "host", ["example.org", "example.org:8000", "127.0.0.1:8001", "10.0.0.1:8000", ""]
)
def test_foreign_hosts_are_refused(client, host):
    assert client.get("/api/model", headers={"host": host}).status_code == REFUSED


@pytest.mark.parametrize(
    "origin", ["http://example.org", "null", "https://127.0.0.1:8000", "http://127.0.0.1:9"]
)
def test_foreign_origins_are_refused(client, origin):
    assert client.post("/api/score", headers={"origin": origin}, json={}).status_code == REFUSED


def test_own_names_are_accepted(client):
    for name in ("127.0.0.1", "localhost"):
        own = {"host": f"{name}:{PORT}", "origin": f"http://{name}:{PORT}"}
        assert client.get("/api/model", headers=own).status_code == 200


def test_too_large_a_body_is_refused_announced_or_not(client):
    content = b"\0" * (MOST_BYTES + 1)
    assert client.post("/api/upload", content=content).status_code == 413

    def pieces():
        for start in range(0, len(content), 2**20):
            yield content[start : start + 2**20]

    assert client.post("/api/upload", content=pieces()).status_code == 413
    assert client.post("/api/upload", headers={"content-length": "-1"}).status_code == 413


def test_every_answer_forbids_what_a_page_could_be_made_to_load(client):
    for path in ("/", "/api/model", "/api/nothing", "/static/../session.py"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path", ["/static/../session.py", "/static/%2e%2e/session.py", "/docs", "/openapi.json"]
)
def test_only_the_page_and_its_parts_are_served(client, path):
    assert client.get(path).status_code == 404


def test_it_listens_to_this_machine_alone(session):
    with beside(session) as served:
        assert served.listening.getsockname()[0] == "127.0.0.1"
        port = served.listening.getsockname()[1]
        with pytest.raises(InputError, match="choose another"):
            prepare(session, port)


def test_tokens_differ(session):
    addresses = set()
    for _ in range(3):
        served = prepare(session)
        served.listening.close()
        addresses.add(served.address.split("token=")[1])
    assert len(addresses) == 3
    assert min(map(len, addresses)) >= 32


def test_it_starts_without_what_only_reports_and_figures_need():
    code = "import sys, mogul.app, mogul.opened; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert {"matplotlib", "sklearn", "scipy"}.isdisjoint(loaded.decode().split())


def test_nothing_is_written_to_disk(session, client):
    written, watching = [], threading.Event()

    def audit(event, arguments):
        opened = watching.is_set() and event == "open" and isinstance(arguments[1], str)
        if opened and set(arguments[1]) & set("wax+"):
            written.append(arguments[0])

    sys.addaudithook(audit)
    watching.set()
    answers = [
        client.get("/api/model"),
        client.post("/api/upload", content=_png(np.full((30, 30), 99, np.uint8))),
        client.post("/api/upload", content=b"nonsense"),
        client.post("/api/inpaint", json=_asked(np.ones((8, 8), np.uint8), row=0)),
    ]
    watching.clear()
    assert [answer.status_code for answer in answers] == [200, 200, 400, 200]
    assert written == []


# --- answers -------------------------------------------------------------------------------------


def _png(pixels, mode=None, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode).save(buffer, kind, **options)
    return buffer.getvalue()


def _asked(mask, row=None, pixels=None, **options):
    image = {"row": row} if pixels is None else {"pixels": packed(pixels)}
    return {"image": image, "mask": packed(mask)} | options


def test_the_model_is_described(client, session):
    found = client.get("/api/model").json()
    assert found["views"] == ["components", "drawing", "outliers", "samples", "training"]
    assert found["shape"] == [8, 8]
    assert found["levels"] == 17
    assert found["title"] == "digits.mogul"
    assert found["sets"]["shown"] == {"name": "digits:test", "rows": 360}
    assert found["figures"]["log_likelihood"] == session.opened.extra["figures"]["log_likelihood"]


def test_components_come_by_weight_with_their_loadings(client, session):
    found, mixture = client.get("/api/components").json(), session.mixture
    expected = characteristic(mixture)
    assert found["index"] == expected.index.tolist()
    assert found["weights"] == sorted(found["weights"], reverse=True)
    assert (array(found["means"]) == session.opened.to_pixels(expected.mean)).all()
    for place, k in enumerate(found["index"][:3]):
        one = client.get(f"/api/components/{k}").json()
        assert one["weight"] == pytest.approx(float(mixture.weights[k]))
        np.testing.assert_array_equal(array(one["mean"]), expected.mean[place].numpy())
        np.testing.assert_array_equal(array(one["noise"]), expected.noise[place].numpy())
        directions = array(one["directions"])
        np.testing.assert_allclose(directions, expected.directions[place].numpy(), atol=1e-6)
    assert (
        client.get("/api/components", params={"start": 10}).json()["index"] == found["index"][10:]
    )


def test_nearest_images_are_the_likeliest_of_those_a_component_is_responsible_for(client, session):
    source, mixture = session.source("train"), session.mixture
    x = source.take(range(len(source)))
    owner, score = mixture.responsibilities(x).argmax(-1), mixture.log_prob(x)
    for k in range(mixture.n_components):
        found = client.get(f"/api/components/{k}/nearest").json()
        own = (owner == k).nonzero().squeeze(-1)
        best = own[score[own].argsort(descending=True)][:24]
        assert found["owned"] == len(own)
        assert score[found["rows"]].tolist() == pytest.approx(score[best].tolist(), abs=1e-3)
        assert (array(found["pixels"]) == session.opened.to_pixels(x[found["rows"]])).all()


def test_samples_are_those_of_the_seed(client, session):
    for path, draw in (
        ("samples?n=5&seed=3", session.mixture.sample((5,), noise=False, seed=3)),
        ("samples?n=5&seed=4&noise=true", session.mixture.sample((5,), seed=4)),
    ):
        found = array(client.get(f"/api/{path}").json()["pixels"])
        assert (found == session.opened.to_pixels(draw)).all()
    one = array(client.get("/api/components/2/samples?seed=1").json()["pixels"])
    assert one.shape == (12, 8, 8)


def test_inpainting_is_the_exact_conditional(client, session):
    x, mask = session.take("shown", [7]), np.ones((8, 8), np.uint8)
    mask[:, 4:] = 0
    found = client.post("/api/inpaint", json=_asked(mask, row=7, samples=3, seed=5)).json()
    observed = torch.from_numpy(mask.reshape(1, -1) != 0)
    expected = inpaint(session.mixture, x, observed, 3, seed=5)
    to_pixels = session.opened.to_pixels
    assert (array(found["mean"]) == to_pixels(expected.mean)).all()
    assert (array(found["samples"]) == to_pixels(expected.samples[:, 0])).all()
    assert found["observed"] == pytest.approx(float(expected.log_likelihood))
    assert found["largest_deviation"] == pytest.approx(float(expected.deviation.max()))


def test_a_picture_of_a_row_is_scored_as_a_row_in_the_middle_of_its_bins(client, session):
    row = client.post("/api/score", json={"row": 3}).json()
    x = session.take("shown", [3])
    assert row["log_likelihood"] == pytest.approx(float(session.mixture.log_prob(x)))
    rank = percentile_of(np.array([row["log_likelihood"]]), session.opened.quantiles)
    assert row["percentile"] == pytest.approx(float(rank[0]))
    pixels = array(row["pixels"])[0]
    drawn = client.post("/api/score", json={"pixels": packed(pixels)}).json()
    middle = (session.source("shown").stored(torch.tensor([3])) + 0.5) / 17
    assert drawn["log_likelihood"] == pytest.approx(
        float(session.mixture.log_prob(middle)), rel=1e-5
    )


def test_outliers_are_those_of_the_library(client, session):
    found = client.get("/api/outliers").json()
    expected = find_outliers(session.mixture, session.source("shown"), session.opened.quantiles)
    assert found["log_likelihoods"] == pytest.approx(
        expected.log_likelihood[expected.order].tolist(), abs=1e-3
    )
    assert sum(found["counts"]) == found["n"] == 360
    below = sum(v < expected.threshold for v in found["log_likelihoods"])
    assert below == expected.n_below


def test_history_is_that_of_the_fit(client, session):
    found = client.get("/api/history").json()
    assert [r["log_likelihood"] for r in found["rows"]] == [
        r["log_likelihood"] for r in session.opened.extra["history"]
    ]
    assert not found["live"]


@pytest.mark.parametrize(
    ("method", "path", "body", "why"),
    [
        ("get", "components/99", None, "there are 12"),
        ("get", "components/-1/nearest", None, "there are 12"),
        ("get", "components/x", None, "valid integer"),
        ("get", "rows/shown?index=360", None, "has 360"),
        ("get", "rows/other?index=0", None, "ask for train or shown"),
        ("get", "samples?n=100000", None, "less than or equal"),
        ("post", "score", {}, "neither came"),
        ("post", "score", {"row": -1}, "count from 0"),
        ("post", "score", {"pixels": packed(np.zeros((9, 9)))}, "images of shape"),
        ("post", "score", {"pixels": {"shape": [8, 8], "type": "f8", "data": ""}}, "u1 and f4"),
        ("post", "score", {"pixels": {"shape": [8, 8], "type": "u1", "data": "@"}}, "base64"),
        ("post", "score", {"pixels": {"shape": [-8, -8], "type": "u1", "data": ""}}, "as many"),
        ("post", "inpaint", _asked(np.ones((4, 4), np.uint8), row=0), "images are of"),
        ("post", "inpaint", _asked(np.ones((8, 8), np.uint8), row=0, samples=99), "less than"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused_with_the_reason(client, method, path, body, why):
    answer = client.request(method, f"/api/{path}", json=body)
    assert answer.status_code == 400
    assert why in answer.json()["error"]


def test_all_pixels_may_be_hidden(client, session):
    found = client.post("/api/inpaint", json=_asked(np.zeros((8, 8), np.uint8), row=0)).json()
    assert found["observed"] == pytest.approx(0.0, abs=1e-5)
    mean = session.opened.to_pixels(session.mixture.mean.unsqueeze(0)).astype(int)
    assert np.abs(array(found["mean"]).astype(int) - mean).max() <= 255 / 16  # one grey value


# --- uploads -------------------------------------------------------------------------------------


def test_uploads_take_the_shape_of_the_model():
    pixels = np.zeros((40, 60), np.uint8)
    pixels[:, 30:] = 255
    found = decode_upload(_png(pixels), (8, 8)).pixels
    assert found.shape == (8, 8)
    assert found[:, :3].max() < 20
    assert found[:, 5:].min() > 235
    colour = np.zeros((50, 50, 3), np.uint8)
    colour[..., 0] = 200
    jpeg = decode_upload(_png(colour, kind="JPEG"), (10, 12, 3)).pixels
    assert jpeg.shape == (10, 12, 3)
    assert abs(int(jpeg[5, 5, 0]) - 200) < 6
    assert int(jpeg[5, 5, 1]) < 6


def test_what_is_transparent_is_black_and_cameras_orientation_is_heeded():
    clear = np.zeros((20, 20, 4), np.uint8)
    clear[..., :3] = 255
    assert decode_upload(_png(clear), (8, 8)).pixels.max() == 0
    turned = np.zeros((16, 16), np.uint8)
    turned[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    found = decode_upload(_png(turned, kind="JPEG", exif=exif), (8, 8)).pixels
    assert found[:3].max() < 30
    assert found[5:].min() > 225


def test_what_was_done_to_an_upload_is_told(client):
    def done(shape, pixels, **options):
        return decode_upload(_png(pixels, **options), shape).done

    grey, colour = np.zeros((40, 60), np.uint8), np.zeros((40, 60, 3), np.uint8)
    cut = ["cut to the middle 40 × 40 of 60 × 40 pixels", "resized from 40 × 40 to 8 × 8 pixels"]
    assert done((8, 8), grey) == cut
    assert done((8, 8), colour) == ["turned grey", *cut]
    assert done((8, 8, 3), colour) == cut
    assert done((40, 60), grey) == []
    assert done((20, 30), grey) == ["resized from 60 × 40 to 30 × 20 pixels"]
    assert done((40, 40), grey) == cut[:1]
    assert done((8, 8, 3), np.zeros((8, 8, 4), np.uint8)) == [
        "laid on black where it is transparent"
    ]
    exif = Image.Exif()
    exif[0x0112] = 6  # on its side
    turned = ["turned as the camera says", "cut to the middle 40 × 40 of 40 × 60 pixels"]
    assert done((40, 40), grey, kind="JPEG", exif=exif) == turned
    found = client.post("/api/upload", content=_png(grey)).json()
    assert found["done"] == [*cut, "rounded to the 17 grey values of the data"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<svg onload=alert(1)>",
        _png(np.zeros((9, 9), np.uint8), kind="GIF"),
        _png(np.zeros((9, 9), np.uint8), kind="TIFF"),
        _png(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))[:300],
        _png(np.zeros((20_000, 20_000), np.uint8), mode="L"),
    ],
    ids=["empty", "text", "gif", "tiff", "cut", "bomb"],
)
def test_bad_uploads_are_refused(client, content):
    answer = client.post("/api/upload", content=content)
    assert answer.status_code == 400
    assert "give" in answer.json()["error"]


def test_data_that_are_gone_are_missed_by_name_and_the_rest_goes_on(tmp_path, monkeypatch):
    rows = np.random.default_rng(0).random((80, 6, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", rows)
    path = fitted(
        tmp_path / "m.mogul", f"{tmp_path}/x.npy --components 2 --rank 1 --passes 2 --json"
    )
    (tmp_path / "x.npy").unlink()
    lonely = client_of(opened_session(path))
    found = lonely.get("/api/model").json()
    assert set(found["missing"]) == {"train", "shown"}
    assert found["views"] == ["components", "drawing", "samples", "training"]
    assert lonely.get("/api/components").status_code == 200
    nearest = lonely.get("/api/components/0/nearest")
    assert nearest.status_code == 400
    assert "x.npy" in nearest.json()["error"]


def test_before_there_is_a_model_only_the_history_is_answered():
    from mogul.app.session import Live

    live = Live("digits", 5)
    client = TestClient(
        create_app(Session(live=live), TOKEN, PORT),
        base_url=f"http://127.0.0.1:{PORT}",
        headers={"authorization": f"Bearer {TOKEN}"},
    )
    assert client.get("/api/model").json()["views"] == ["training"]
    assert client.get("/api/history").json() == {
        "rows": [], "passes": 5, "live": True, "ready": False,
    }  # fmt: skip
    refused = client.get("/api/components")
    assert refused.status_code == 400
    assert "has not ended" in refused.json()["error"]
