"""The explorer's answers about models with latents are what the library finds."""

import threading

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from explored import array, client_of, fitted, opened_session, packed
from mogul import InputError, open_source
from mogul.app import Session
from mogul.app.cloud import MOST_SUMMARISED
from mogul.compute.backend import make_generator
from mogul.data import open_labels
from mogul.tasks import decode_rows, inpaint_latent, of_class, summarise

DECODER = "--model decoder --decoder mlp --latents 3 --particles 2 --passes 2 --json"
VAE = "--model vae --batch-size 40 --passes 2 --json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("latents")


@pytest.fixture(scope="module")
def decoder(folder):
    """A decoder of 3 latents with a normal prior."""
    return opened_session(fitted(folder / "decoder.mogul", f"digits --limit 70 {DECODER}"))


@pytest.fixture(scope="module")
def vae(folder):
    """An autoencoder of 2 latents with a mixture prior."""
    command = f"digits --limit 120 {VAE} --latents 2 --prior mixture --components 5"
    return opened_session(fitted(folder / "vae.mogul", command))


@pytest.fixture(scope="module")
def table(folder):
    """An autoencoder of a table with names, of 1 latent."""
    random = np.random.default_rng(0)
    first = random.normal(size=(90, 1))
    rows = np.hstack([first, 2 * first + 0.1 * random.normal(size=(90, 1)), 3 - first])
    path = folder / "table.csv"
    np.savetxt(path, rows, delimiter=",", header="width,height,depth", comments="")
    return opened_session(fitted(folder / "table.mogul", f"{path} {VAE} --latents 1"))


def means(session):
    """Return the latent of every training row."""
    model = session.decoder.model
    if model.particles is not None:
        return model.particles.mean(1)
    return model.posterior(session.decoder.rows(session.source("train"))).mean


def pixels(session, z):
    return session.decoder.to_pixels(decode_rows(session.decoder.model, z))


def test_the_map_is_the_principal_plane_of_the_particles(decoder):
    found = client_of(decoder).get("/api/latents").json()
    z = means(decoder).numpy().astype(float)
    fit = PCA(2).fit(z)
    points = array(found["points"])
    turn = np.sign((points * fit.transform(z)).sum(0))  # axes are known up to their signs
    np.testing.assert_allclose(points * turn, fit.transform(z), atol=1e-5)
    assert found["share"] == pytest.approx(fit.explained_variance_ratio_.sum(), abs=1e-5)
    assert found["rows"] == list(range(70))
    assert found["of"] == "train"
    assert not found["means"]
    # The standard normal: a circle of radius 1 about its mean, wherever the plane is.
    centre = fit.transform(np.zeros((1, 3))) * turn
    radii = np.linalg.norm(array(found["outlines"])[0] - centre, axis=1)
    np.testing.assert_allclose(radii, 1, atol=1e-4)


def test_the_map_of_two_latents_is_themselves_with_the_components_of_the_prior(vae):
    found = client_of(vae).get("/api/latents").json()
    np.testing.assert_allclose(array(found["points"]), means(vae), atol=1e-5)
    prior = vae.decoder.model.prior
    order = prior.log_weights.argsort(descending=True, stable=True)
    outlines = torch.tensor(array(found["outlines"]))
    offset = outlines - prior.means[order].unsqueeze(1)
    scaled = (offset / prior.variances[order].sqrt().unsqueeze(1)).norm(dim=-1)
    torch.testing.assert_close(scaled, torch.ones_like(scaled))
    assert found["weights"] == pytest.approx(prior.weights[order].tolist())
    assert found["share"] == 1
    assert found["means"]


def test_long_data_are_shown_by_rows_evenly_apart(vae, monkeypatch):
    monkeypatch.setattr("mogul.app.cloud.MOST_POINTS", 50)
    session = Session(vae.decoder)
    found = client_of(session).get("/api/latents").json()
    rows = found["rows"]
    assert len(rows) == 50
    assert (rows[0], rows[-1]) == (0, 49 * 120 // 50)
    np.testing.assert_allclose(array(found["points"]), means(vae)[rows], atol=1e-5)


def test_groups_are_the_classes_of_the_data(decoder, vae):
    for session, n in ((decoder, 70), (vae, 120)):
        found = client_of(session).get("/api/latents/groups").json()
        assert found["what"] == "class"
        named = [int(found["names"][g]) for g in found["group"]]
        assert named == open_labels("digits", n).tolist()


def test_without_classes_groups_are_components(folder):
    rows = open_source("digits", limit=80).take(range(80)).numpy()
    np.save(folder / "rows.npy", rows.reshape(-1, 8, 8))
    command = f"{folder / 'rows.npy'} {VAE} --latents 2"
    mixed = opened_session(
        fitted(folder / "mixed.mogul", f"{command} --prior mixture --components 4")
    )
    found = client_of(mixed).get("/api/latents/groups").json()
    expected = mixed.decoder.model.prior.responsibilities(means(mixed)).argmax(-1)
    assert found["what"] == "component of the prior"
    assert found["group"] == expected.tolist()
    assert len(found["names"]) == 4

    plain = opened_session(fitted(folder / "plain.mogul", command))
    found = client_of(plain).get("/api/latents/groups").json()
    model = plain.decoder.model
    posterior = model.posterior(plain.decoder.rows(plain.source("train")))
    draws = posterior.sample(1, make_generator(0)).transpose(0, 1)
    fit = summarise(model, "mixture", particles=draws)
    assert "fitted" in found["what"]
    assert found["group"] == fit.responsibilities(means(plain)).argmax(-1).tolist()
    assert len(found["names"]) == fit.n_components


@pytest.mark.parametrize("through", ["row", "mean"])
def test_a_place_is_decoded_in_the_plane_through_a_row_or_the_mean(decoder, through):
    client, z = client_of(decoder), means(decoder)
    mapped = client.get("/api/latents").json()
    points = torch.tensor(array(mapped["points"]))
    for at in ([0.3, -0.2], [-1.0, 0.5]):
        found = client.post("/api/latents/decode", json={"at": at, "through": through}).json()
        latents = torch.tensor(found["latents"])
        # It lies where it should in the plane, and off it as far as the row or the mean does.
        anchor = int((points - torch.tensor(at)).norm(dim=1).argmin())
        base = z[anchor] if through == "row" else z.mean(0)
        axes = PCA(2).fit(z.numpy()).components_
        inside = np.linalg.norm((latents - z.mean(0)).numpy() @ axes.T)
        assert inside == pytest.approx(np.linalg.norm(at), abs=1e-4)
        normal = np.cross(*axes)
        assert (latents - base).numpy() @ normal == pytest.approx(0, abs=1e-4)
        assert found["through"] == (anchor if through == "row" else None)
        shown = array(found["decoded"]["pixels"])
        np.testing.assert_array_equal(shown, pixels(decoder, latents.unsqueeze(0)))
        log_prior = decoder.decoder.model.prior.log_prob(latents.unsqueeze(0))
        assert found["log_prior"] == pytest.approx(float(log_prior), abs=1e-5)
        near = int((z - latents).norm(dim=1).argmin())
        assert (found["row"], found["place"]) == (near, near)
        data = decoder.decoder.to_pixels(decoder.take("train", [near]))
        np.testing.assert_array_equal(array(found["nearest"]["pixels"]), data)


def test_at_a_rows_own_place_its_own_latents_are_decoded(decoder):
    client = client_of(decoder)
    points = array(client.get("/api/latents").json()["points"])
    for row in (0, 33, 69):
        found = client.post("/api/latents/decode", json={"at": points[row].tolist()}).json()
        assert found["row"] == found["through"] == row
        np.testing.assert_allclose(found["latents"], means(decoder)[row], atol=1e-5)


def test_a_line_is_straight_between_the_latents_of_two_rows(vae):
    found = client_of(vae).post("/api/latents/line", json={"start": 7, "end": 90}).json()
    z, model = means(vae), vae.decoder.model
    a, b = z[7], z[90]
    steps = a + torch.linspace(0, 1, 10).unsqueeze(-1) * (b - a)
    shown, expected = array(found["decoded"]["pixels"]), pixels(vae, steps)
    assert np.abs(shown.astype(int) - expected.astype(int)).max() <= 17  # a level of 16
    share = torch.tensor(found["share"]).unsqueeze(-1)
    expected = model.prior.log_prob(a + share * (b - a))
    np.testing.assert_allclose(found["log_prior"], expected, atol=1e-3)
    assert found["rows"] == [7, 90]
    data = vae.decoder.to_pixels(vae.take("train", [7, 90]))
    np.testing.assert_array_equal(array(found["ends"]["pixels"]), data)


def test_components_of_the_prior_come_by_weight_and_are_drawn_from(vae):
    client, model = client_of(vae), vae.decoder.model
    found = client.get("/api/latents/components").json()
    order = model.prior.log_weights.argsort(descending=True, stable=True)
    assert found["index"] == order.tolist()
    assert found["total"] == 5
    shown = array(found["decoded"]["pixels"])
    np.testing.assert_array_equal(shown, pixels(vae, model.prior.means[order]))
    rest = client.get("/api/latents/components", params={"start": 3}).json()
    assert rest["index"] == order[3:].tolist()
    drawn = client.get("/api/latents/components/2", params={"seed": 4}).json()
    expected = model.sample(12, 4, of_class(model.prior, 2))
    np.testing.assert_array_equal(
        array(drawn["decoded"]["pixels"]), vae.decoder.to_pixels(expected)
    )


def test_a_prior_of_pseudo_inputs_has_components_too(folder):
    command = f"digits --limit 60 {VAE} --latents 2 --prior vamp --components 4"
    session = opened_session(fitted(folder / "vamp.mogul", command))
    found = client_of(session).get("/api/latents/components").json()
    prior = session.decoder.model.prior
    assert found["total"] == prior.n_components == 4
    expected = pixels(session, prior.means[found["index"]])
    np.testing.assert_array_equal(array(found["decoded"]["pixels"]), expected)


@pytest.mark.parametrize("noise", [False, True])
def test_samples_come_from_the_prior_and_from_a_mixture_of_the_particles(decoder, noise):
    client, model = client_of(decoder), decoder.decoder.model
    for kind in ("prior", "mixture"):
        asked = {"n": 6, "seed": 3, "noise": noise, "latents": kind}
        found = client.get("/api/samples", params=asked).json()
        density = summarise(model, kind)
        expected = decoder.decoder.to_pixels(model.sample(6, 3, density, noise))
        np.testing.assert_array_equal(array(found["pixels"]), expected)
        assert found["components"] == density.n_components
    assert len(model.particles) < MOST_SUMMARISED


def test_what_an_autoencoder_is_beside_is_a_mixture_of_draws_from_its_posteriors(vae):
    found = client_of(vae).get("/api/samples", params={"n": 6, "seed": 3, "latents": "mixture"})
    model = vae.decoder.model
    posterior = model.posterior(vae.decoder.rows(vae.source("train")))
    draws = posterior.sample(1, make_generator(0)).transpose(0, 1)
    density = summarise(model, "mixture", particles=draws)
    expected = vae.decoder.to_pixels(model.sample(6, 3, density))
    np.testing.assert_array_equal(array(found.json()["pixels"]), expected)


def test_a_table_is_told_in_numbers(table):
    client = client_of(table)
    assert client.get("/api/model").json()["views"] == ["latents", "training"]
    mapped = client.get("/api/latents").json()
    assert mapped["names"] == ["width", "height", "depth"]
    points = array(mapped["points"])
    np.testing.assert_allclose(points[:, :1], means(table), atol=1e-5)
    assert not points[:, 1].any()
    at = points[4].tolist()
    found = client.post("/api/latents/decode", json={"at": at, "through": "mean"}).json()
    expected = decode_rows(table.decoder.model, means(table)[4:5])
    np.testing.assert_allclose(array(found["decoded"]["values"]), expected, atol=1e-4)
    row = table.take("train", [found["row"]])
    np.testing.assert_allclose(array(found["nearest"]["values"]), row, rtol=1e-6)
    line = client.post("/api/latents/line", json={"start": 0, "end": 1}).json()
    assert array(line["decoded"]["values"]).shape == (10, 3)


def test_a_model_of_images_has_its_views_in_order(decoder, vae):
    for session in (decoder, vae):
        views = client_of(session).get("/api/model").json()["views"]
        assert views == ["latents", "drawing", "samples", "training"]


@pytest.mark.parametrize(
    ("method", "path", "body", "why"),
    [
        ("post", "decode", {"at": [0.0]}, "body.at"),
        ("post", "decode", {"at": [0.0, "x"]}, "valid number"),
        ("post", "decode", {"at": [0.0, 1.0], "through": "wall"}, "'row' or 'mean'"),
        ("post", "line", {"start": 0, "end": 70}, "it has 70, from 0"),
        ("post", "line", {"start": -1, "end": 3}, "it has 70, from 0"),
        ("post", "line", {"start": 0}, "body.end"),
        ("get", "components/1", None, "choose one from 0 to 0"),
        ("get", "components?start=-1", None, "query.start"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_reason(decoder, method, path, body, why):
    given = {} if body is None else {"json": body}
    found = client_of(decoder).request(method, f"/api/latents/{path}", **given)
    assert found.status_code == 400
    assert why in found.json()["error"]


def test_infinite_places_are_refused(decoder):
    body = '{"at": [Infinity, 0]}'
    sent = {"content": body, "headers": {"content-type": "application/json"}}
    found = client_of(decoder).post("/api/latents/decode", **sent)
    assert found.status_code == 400
    assert "finite" in found.json()["error"]


def test_samples_of_unknown_latents_are_refused(decoder, folder):
    found = client_of(decoder).get("/api/samples", params={"latents": "class"})
    assert found.status_code == 400
    assert "'prior' or 'mixture'" in found.json()["error"]
    mixture = opened_session(
        fitted(folder / "mixture.mogul", "digits --components 2 --rank 1 --passes 1 --json")
    )
    client = client_of(mixture)
    found = client.get("/api/samples", params={"latents": "prior"})
    assert found.status_code == 400
    assert "no latents" in found.json()["error"]
    assert "no latents" in client.get("/api/latents").json()["error"]


def test_particles_are_shown_without_their_data(folder, monkeypatch):
    rows = open_source("digits", limit=40).take(range(40)).numpy()
    np.save(folder / "gone.npy", rows.reshape(-1, 8, 8))
    path = fitted(folder / "orphan.mogul", f"{folder / 'gone.npy'} {DECODER}")
    (folder / "gone.npy").unlink()
    client = client_of(opened_session(path))
    found = client.get("/api/latents").json()
    assert found["of"] is None
    assert len(found["rows"]) == 40
    shown = client.post("/api/latents/decode", json={"at": [0.0, 0.0]}).json()
    assert shown["nearest"] is None
    assert array(shown["decoded"]["pixels"]).shape == (1, 8, 8)
    assert client.get("/api/latents/groups").json()["group"]


def test_requests_at_the_same_time_leave_the_model_as_it_was(decoder):
    client, model = client_of(decoder), decoder.decoder.model
    points = array(client.get("/api/latents").json()["points"])
    expected = pixels(decoder, means(decoder))
    found = {}

    def ask(row):
        body = {"at": points[row].tolist()}
        answer = client.post("/api/latents/decode", json=body).json()
        found[row] = array(answer["decoded"]["pixels"])[0]

    threads = [threading.Thread(target=ask, args=(row,)) for row in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for row, shown in found.items():
        assert np.abs(shown.astype(int) - expected[row].astype(int)).max() <= 17, row
    assert len(found) == 24
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_what_takes_long_is_found_once_and_failures_are_tried_again():
    session, calls, release = Session(), [], threading.Event()

    def find():
        calls.append(1)
        assert release.wait(30)
        return object()

    results = []
    threads = [
        threading.Thread(target=lambda: results.append(session.kept("a", find))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    release.set()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(set(map(id, results))) == 1

    def fail():
        raise InputError("not now")

    with pytest.raises(InputError, match="not now"):
        session.kept("b", fail)
    assert session.kept("b", lambda: 5) == 5


def test_components_beyond_the_last_are_refused(decoder, vae):
    for session in (decoder, vae):
        answer = client_of(session).get("/api/latents/components?start=99")
        assert answer.status_code == 400
        assert "counted from 0" in answer.json()["error"]


def test_places_beyond_what_numbers_hold_are_refused(decoder):
    answer = client_of(decoder).post("/api/latents/decode", json={"at": [1e308, -1e308]})
    assert answer.status_code == 400
    assert "nearer" in answer.json()["error"]


@pytest.mark.parametrize("which", ["decoder", "vae"])
def test_inpainting_at_rest_and_along_a_stroke(request, which):
    session = request.getfixturevalue(which)
    model, x = session.decoder.model, session.take("shown", [4])
    mask = np.ones(session.opened.feature_shape, np.uint8)
    mask[:, 4:] = 0
    observed = torch.from_numpy(mask.reshape(1, -1) != 0)

    def asked(**options):
        image = {"image": {"row": 4}, "mask": packed(mask), "samples": 2, "seed": 3}
        answer = client_of(session).post("/api/inpaint", json=image | options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def same(found, expected):
        to_pixels = session.decoder.to_pixels
        assert (array(found["mean"]) == to_pixels(expected.mean)).all()
        assert (array(found["samples"]) == to_pixels(expected.samples[:, 0])).all()
        assert found["observed"] == pytest.approx(float(expected.log_joint))
        np.testing.assert_array_equal(array(found["latents"]), expected.latents.numpy())

    rested = asked()
    same(rested, inpaint_latent(model, x, observed, 2, seed=3))  # as `mogul inpaint` does
    same(asked(settled=False), inpaint_latent(model, x, observed, 2, 48, 3, None, 20, 4))
    start = torch.from_numpy(array(rested["latents"]).copy())
    stroke = asked(settled=False, start=rested["latents"])
    same(stroke, inpaint_latent(model, x, observed, 2, 24, 3, start, 20, 4))
    assert stroke["observed"] >= rested["observed"] - 1e-4  # it started at the best that is known


def test_latents_of_another_shape_are_refused(vae):
    mask = packed(np.ones(vae.opened.feature_shape, np.uint8))
    wrong = {"shape": [1, 1], "type": "f4", "data": "AAAAAA=="}
    asked = {"image": {"row": 0}, "mask": mask, "settled": False, "start": wrong}
    answer = client_of(vae).post("/api/inpaint", json=asked)
    assert answer.status_code == 400
    assert "Latents of shape (1, 1)" in answer.json()["error"]
