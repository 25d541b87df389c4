"""MJCF files from strangers: broken, hostile and mutated ones are one sentence each, and never more."""

import contextlib
import json
import os
import re
import resource
import struct
import tempfile
import warnings
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest

from metarl.core.errors import UserError
from metarl.sim.mujoco.mjcf import sandbox, scan as mjcf
from metarl.sim.mujoco.mjcf.sandbox import examine

OURS = sorted((Path(__file__).parents[2] / "envs" / "assets").glob("*.xml"))
GYMNASIUM = sorted((Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets").glob("*.xml"))
RULE = "only files in the model's folder are read, or in a wider one that --folder names"
BODY = '<worldbody><body><freejoint/><geom size="0.1"/></body></worldbody>'


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path, monkeypatch):
    """The user stands in an empty folder beside the model's, and neither gets a MUJOCO_LOG.TXT."""
    (tmp_path / "here").mkdir()
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield
    assert list((tmp_path / "here").iterdir()) == []
    assert list((tmp_path / "model").rglob("MUJOCO_LOG.TXT")) == []


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "model"


def tetrahedron(size):
    """A mesh (STL)."""
    corners = [np.zeros(3), *size * np.eye(3)]
    data = struct.pack("<80xI", 4)
    for face in ((0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)):
        data += struct.pack("<12f2x", 0, 0, 0, *np.concatenate([corners[i] for i in face]))
    return data


def write(folder, **files):
    """Write files, `robot` as robot.xml; other names with _ for /."""
    for name, content in files.items():
        path = folder / (name.replace("__", "/") + ("" if name.endswith(("stl", "png")) else ".xml")).replace(
            "_stl", ".stl"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / "robot.xml"


def mistake(path, **options):
    """The sentence about a file that must not load."""
    with pytest.raises(UserError) as caught:
        examine(mjcf.read(path), **{"seconds": 3.0} | options)
    sentence = str(caught.value)
    assert sentence.isprintable(), sentence
    assert len(sentence) < 1000
    return sentence


def compiled(*specs):
    """Models, in this process. MuJoCo warns, and writes that into the working directory."""
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place), warnings.catch_warnings(action="ignore"):
        return [spec.compile() for spec in specs]


@pytest.mark.parametrize("path", OURS + GYMNASIUM, ids=lambda path: path.stem)
def test_sound_files_load_and_compile_to_the_same_model(path):
    report = examine(mjcf.read(path), simulate=True)
    model, expected = compiled(mjcf.read(path).spec(), mujoco.MjSpec.from_file(str(path)))
    assert mujoco.mj_sizeModel(model) == mujoco.mj_sizeModel(expected)
    assert (report.bodies, report.joints, report.actuators) == (expected.nbody - 1, expected.njnt, expected.nu)
    assert report.mass == pytest.approx(expected.body_mass.sum())
    assert report.size > mujoco.mj_sizeModel(expected)
    assert report.diverged == {}


def test_load_compiles_once_in_a_child_of_its_own(monkeypatch):
    assert mjcf.load(OURS[0]).compile().nu > 0
    examined = []
    monkeypatch.setattr(mjcf, "examine", lambda *words, **limits: examined.append(words))
    assert mjcf.load(str(OURS[0])).compile().nu > 0
    assert examined == []


def mutants(number):
    """Seeded mutations of gymnasium's files and ours."""
    rng = np.random.default_rng(7)
    texts = [path.read_bytes() for path in OURS + GYMNASIUM]
    tag, value = re.compile(rb"<[^!?][^<>]*>"), re.compile(rb"-?\d+\.?\d*(?:e-?\d+)?")
    wild = (b"1e308", b"-1e308", b"NaN", b"nan", b"inf", b"99999999999999999999", b"-7", b"1e-300", b"", b"100000000")

    def pick(pattern, text):
        found = list(pattern.finditer(text))
        return found[rng.integers(len(found))] if found else re.search(b"", text)

    for i in range(number):
        text = texts[i % len(texts)]
        for _ in range(rng.integers(1, 4)):
            kind = rng.integers(8)
            spot = pick(tag if kind < 4 else value, text)
            other = pick(tag if kind < 4 else value, text)
            change = (
                b"",
                spot[0] * 2,
                spot[0].replace(b"=", b"", 1),
                other[0],
                other[0],
                wild[rng.integers(len(wild))],
                wild[rng.integers(len(wild))],
                rng.bytes(3),
            )[kind]
            text = text[: spot.start()] + change + text[spot.end() :]
        yield text if i % 20 else text[: rng.integers(len(text))]


def forked(files):
    """As `examine`, but in a fork of this process, which saves the start of an interpreter."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.chdir(Path(files.name).parent.parent)  # for MuJoCo's log
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            sandbox._limit(20.0)
            os.write(writer, json.dumps(sandbox._answer(files, 0.0)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    answer = json.loads(answer) if answer else "MuJoCo crashes on it"
    if isinstance(answer, str):
        raise UserError(sandbox._sentence(files, answer))


def test_mutants_never_hurt_the_parent(folder, figure):
    """Every tenth goes through the real child, the others through forks of this process."""
    loaded, problems, tried = 0, [], 1000 if os.environ.get("METARL_FULL") == "1" else 100
    for number, text in enumerate(mutants(tried)):
        path = folder / "robot.xml"
        path.write_bytes(text)
        try:
            files = mjcf.read(path)
            forked(files) if number % 10 else examine(files)
            compiled(files.spec())
            loaded += 1
        except UserError as error:
            problems.append(str(error))
    assert loaded + len(problems) == tried
    assert loaded > tried // 10
    assert len(set(problems)) > tried // 4
    for sentence in problems:
        assert sentence.isprintable()
        assert sentence.startswith(str(folder / "robot.xml"))
    assert sum("line " in sentence for sentence in problems) > 0.8 * len(problems)
    assert sum("crashes" in sentence for sentence in problems) < tried // 40
    figure(f"mutated MJCF files: {tried} of {tried} load ({loaded}) or are refused in one sentence; no crash here")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "robot.xml is empty"),
        ("  \n", "robot.xml is empty"),
        ("<mujoco><worldbody><geom size='NaN'/></worldbody></mujoco>", "robot.xml: XML contains a 'NaN'"),
        ("hello", "robot.xml, line 1: no well-formed XML: syntax error"),
        (b"\x7fELF\x02\x01\x00\x00\xff\xfe", "robot.xml, line 1: no well-formed XML"),
        ("<mujoco>\n<worldbody>\n</mujoco>", "robot.xml, line 3: no well-formed XML: mismatched tag"),
        ("<mujoco model='\xff'/>".encode("latin-1"), "robot.xml, line 1: no well-formed XML: not well-formed"),
        ("<r name='x'/>", "robot.xml, line 1: its root is <r>, not <mujoco>"),
        ("<mujoco>\n<geom sizes='1'/></mujoco>", "robot.xml, line 2: Schema violation: unrecognized element"),
        ("<mujoco><worldbody>\n\n<geom sizes='1'/></worldbody></mujoco>", "robot.xml, line 3: Schema violation"),
        ("<mujoco><worldbody>\n<body><freejoint/></body></worldbody></mujoco>", "robot.xml, line 2: mass and inertia"),
        ("<mujoco><asset>\n<mesh file='\x1b[2Ja.stl'/></asset></mujoco>", "robot.xml, line 2: no well-formed XML"),
        ("<mujoco><asset>\n<mesh file='a.stl'/></asset></mujoco>", "robot.xml, line 2: there is no file 'a.stl'"),
        ("<mujoco>" + "<worldbody>" * 100_000, "no well-formed XML: no element found"),
        ("<mujoco><worldbody>" + "<body>" * 9000 + "</body>" * 9000 + "</worldbody></mujoco>", "ELEMENT_DEPTH"),
    ],
)
def test_a_broken_file_is_one_sentence_with_its_line(text, expected, folder):
    assert expected in mistake(write(folder, robot=text))


def test_what_is_no_file_is_one_sentence(folder):
    assert mistake(folder) == f"{folder} is a folder, not a MJCF file"
    assert mistake(folder / "nowhere.xml") == f"there is no file {folder}/nowhere.xml"
    os.mkfifo(folder / "pipe.xml")
    assert mistake(folder / "pipe.xml") == f"{folder}/pipe.xml is not a regular file"


def test_too_much_to_read_is_refused(folder, monkeypatch):
    path = write(folder, robot=b"<mujoco>" + b" " * mjcf.XML_LIMIT + b"</mujoco>")
    assert "robot.xml is too large: an XML file may have 16 MiB" in mistake(path)
    many = "".join(f"<include file='a{i}.xml'/>" for i in range(5))
    path = write(folder, robot=f"<mujoco>{many}</mujoco>", **{f"a{i}": "<a/>" for i in range(5)})
    monkeypatch.setattr(mjcf, "FILE_LIMIT", 3)
    assert "refers to more than 3 files" in mistake(path)


def test_entities_are_refused_ahead_of_everything(folder):
    """Expanded, the first file has 10^12 letters."""
    laughs = "".join(f"<!ENTITY l{i + 1} '{f'&l{i};' * 10}'>" for i in range(12))
    bomb = f"<?xml version='1.0'?>\n<!DOCTYPE mujoco [<!ENTITY l0 'ha'>{laughs}]>\n<mujoco model='&l12;'/>"
    stolen = "<!DOCTYPE mujoco [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>\n<mujoco model='x'>&x;</mujoco>"
    for text, line in ((bomb, 2), (stolen, 1)):
        assert f"robot.xml, line {line}: it declares a document type" in mistake(write(folder, robot=text))


def test_unfinished_comments_take_no_time(folder):
    """Of a million, all pairs would take days."""
    mistake(write(folder, robot="<mujoco>" + "<!--" * 1_000_000))
    mjcf.read(write(folder, robot=f"<mujoco><!-- as -- MuJoCo - allows -->{BODY}</mujoco>"))


@pytest.mark.parametrize(
    "text",
    [
        "<mujoco>\n<include file='{}'/></mujoco>",
        "<mujoco>\n<asset><model name='m' file='{}'/></asset></mujoco>",
        "<mujoco>\n<asset><mesh file='{}'/></asset></mujoco>",
        "<mujoco>\n<asset><texture type='cube' fileup='{}'/></asset></mujoco>",
        "<mujoco>\n<asset><hfield size='1 1 1 1' file='{}'/></asset></mujoco>",
        "<mujoco>\n<asset><skin file='{}'/></asset></mujoco>",
        "<mujoco>\n<worldbody><flexcomp name='f' type='mesh' file='{}'/></worldbody></mujoco>",
    ],
    ids=lambda text: re.search(r"(\w+)[^<]*'\{\}", text)[1],
)
def test_no_file_outside_the_folder_is_read(text, folder):
    """The outside file is a named pipe: to open it would wait for ever."""
    outside = folder.parent / "secret.xml"
    os.mkfifo(outside)
    (folder / "link.xml").symlink_to(outside)
    (folder / "up").symlink_to(folder.parent)
    for file in (outside, "../secret.xml", "a/../../secret.xml", "..\\secret.xml", "link.xml", "up/secret.xml", "f:x"):
        sentence = mistake(write(folder, robot=text.format(file)))
        assert sentence.startswith(f"{folder}/robot.xml, line 2: "), sentence
        assert sentence.endswith(f": {RULE}"), sentence
    for compiler in ("meshdir", "texturedir", "assetdir"):
        for place in ("..", "up", str(folder.parent)):
            path = write(folder, robot=f"<mujoco>\n<compiler {compiler}='{place}'/>{text.format('secret.xml')[8:]}")
            sentence = mistake(path)
            assert sentence.endswith((RULE, "there is no file 'secret.xml'")), sentence


def test_a_link_as_the_model_itself_stays_in_the_folder(folder):
    (folder.parent / "secret.xml").write_text("<mujoco/>")
    (folder / "robot.xml").symlink_to(folder.parent / "secret.xml")
    assert "is a link that leads outside" in mistake(folder / "robot.xml")


def test_the_child_itself_can_open_no_file(folder):
    """Whatever the scan overlooks: here it is told of no reference. MuJoCo takes what does not open for empty."""
    outside = folder.parent / "secret.xml"
    os.mkfifo(outside)
    path = write(folder, robot=f"<mujoco><include file='{outside}'/></mujoco>")
    files = mjcf.Mjcf(str(path), str(path), ((str(path), path.read_bytes()),), ())
    with pytest.raises(UserError, match=r"line 1: Empty file"):
        examine(files)


def test_a_wider_folder_may_be_allowed(folder):
    write(folder, common="<a><option timestep='0.001'/></a>")
    path = write(folder / "arm", robot=f"<mujoco><include file='../common.xml'/>{BODY}</mujoco>")
    assert "'../common.xml' lies outside: only files" in mistake(path)
    files = mjcf.read(path, folder)
    assert examine(files).bodies == 1
    assert files.spec().compile().opt.timestep == 0.001


def test_includes_without_end_are_named(folder):
    path = write(folder, robot="<mujoco>\n<include file='a.xml'/></mujoco>", a="<a>\n\n<include file='robot.xml'/></a>")
    sentence = mistake(path)
    assert sentence.startswith(f"{folder}/a.xml, line 3: the files include each other without end: ")
    assert sentence.endswith(f"{folder}/robot.xml includes {folder}/a.xml includes {folder}/robot.xml")


def test_included_files_are_named(folder):
    path = write(folder, robot="<mujoco>\n<include file='sub/a.xml'/></mujoco>", sub__a="<a>\n<worldbody></a>")
    assert mistake(path).startswith(f"{folder}/sub/a.xml, line 2: no well-formed XML")
    path = write(folder, robot="<mujoco>\n<include file='sub/a.xml'/></mujoco>", sub__a="<a>\n<geom/></a>")
    assert mistake(path).startswith(f"{folder}/robot.xml, in a file it includes: Schema violation")


def test_meshes_of_one_name_are_told_apart(folder):
    """In the folders of the compiler, beside an included file, and of an attached model: as MuJoCo on the disk."""
    robot = """<mujoco><compiler meshdir="x/../m"/><include file="sub/more.xml"/>
    <asset><mesh name="a" file="one/a.stl"/><model name="kid" file="kid/kid.xml"/></asset>
    <worldbody><geom type="mesh" mesh="a"/><geom type="mesh" mesh="b"/>
    <frame><attach model="kid" body="kid" prefix="k_"/></frame></worldbody></mujoco>"""
    kid = """<mujoco><compiler meshdir="m"/><asset><mesh name="a" file="a.stl"/></asset>
    <worldbody><body name="kid"><joint/><geom type="mesh" mesh="a"/></body></worldbody></mujoco>"""
    path = write(
        folder,
        robot=robot,
        sub__more='<a><asset><mesh name="b" file="two/a.stl"/></asset></a>',
        kid__kid=kid,
        m__one__a_stl=tetrahedron(1.0),
        m__two__a_stl=tetrahedron(2.0),
        kid__m__a_stl=tetrahedron(3.0),
    )
    files = mjcf.read(path)
    assert examine(files).joints == 1
    expected = mujoco.MjModel.from_xml_path(str(path))
    assert files.spec().compile().geom_rbound.tolist() == expected.geom_rbound.tolist()
    assert len(set(expected.geom_rbound.tolist())) == 3


@pytest.mark.parametrize(
    "text",
    [
        "<size nuserdata='2000000000'/>",
        "<size nuserdata='100000000'/>",
        "<size memory='1000000G'/>",
        "<asset><hfield name='h' nrow='60000' ncol='60000' size='1 1 1 1'/></asset>",
        "<asset><texture name='t' type='2d' builtin='flat' width='60000' height='60000'/></asset>",
        "<worldbody><replicate count='100000000'><geom size='1'/></replicate></worldbody>",
        "<worldbody>" + "<replicate count='1000'>" * 4 + "<geom size='1'/>" + "</replicate>" * 4 + "</worldbody>",
        "<worldbody><flexcomp name='f' type='grid' dim='3' count='900 900 900' spacing='1 1 1'/></worldbody>",
    ],
    ids=lambda text: re.search(r"<(\w+) (\w+)", text)[0][1:],
)
def test_a_file_that_asks_for_gigabytes_is_refused(text, folder):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sentence = mistake(write(folder, robot=f"<mujoco>\n{text}</mujoco>"), memory=400 << 20, seconds=1.0)
    assert re.search("more than 0.391 GiB of memory|more than 1 s of", sentence), sentence
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100_000  # [KiB]


def test_what_is_used_counts_not_what_is_reserved(folder):
    """MuJoCo reserves 6 GB for the arena of so many constraints, and uses next to nothing of it."""
    path = write(folder, robot=f"<mujoco>\n<size njmax='8000' nconmax='4000'/>{BODY}</mujoco>")
    (model,) = compiled(mjcf.read(path).spec())
    assert model.narena > 1 << 30
    report = examine(mjcf.read(path), simulate=True, memory=400 << 20)
    assert report.size < 1 << 20
    assert "needs more than 0.0195 GiB" in mistake(path, memory=20 << 20)


def test_work_without_end_is_stopped(folder):
    path = write(folder, robot=f"<mujoco><option timestep='1e-9'/>{BODY}</mujoco>")
    with pytest.raises(UserError, match=r"it takes more than 0.5 s of processor time"):
        examine(mjcf.read(path), simulate=True, seconds=0.5)
    assert examine(mjcf.read(path), seconds=0.5).bodies == 1


def test_a_child_that_hangs_or_dies_is_one_sentence(folder, monkeypatch):
    path = write(folder, robot=f"<mujoco>{BODY}</mujoco>")
    monkeypatch.setattr(sandbox, "_HANGING", -3.0)
    assert "still hangs after 0 s" in mistake(path)
    monkeypatch.undo()
    monkeypatch.setattr(
        sandbox, "__file__", str(folder / "a" / "b" / "c" / "d" / "e.py")
    )  # a child without the package
    monkeypatch.setenv("PYTHONPATH", str(folder))
    (folder / "metarl.py").write_text("raise RuntimeError('no such package')")
    assert mistake(path).endswith("the process that compiles it ended: RuntimeError: no such package")


def test_the_child_tells_what_diverges_and_what_has_no_range(folder):
    robot = """<mujoco><option timestep="0.02"/><worldbody><body><joint name="j"/><geom size="0.1"/></body></worldbody>
    <actuator><motor name="strong" joint="j" gear="1e12" ctrlrange="-1 1"/>
    <motor name="free" joint="j" gear="0"/></actuator></mujoco>"""
    report = examine(mjcf.read(write(folder, robot=robot)), simulate=True)
    assert report.unlimited == ["free"]
    assert list(report.diverged) == ["random"]
    assert 0 <= report.diverged["random"] < 1
    assert report.remedy == {"random": 0.0}, "no smaller timestep helps"


def test_a_smaller_timestep_is_tried_before_it_is_advised(folder):
    robot = """<mujoco><option timestep="0.02"/><worldbody><body><joint name="j"/><geom size="0.1"/></body></worldbody>
    <actuator><position joint="j" kp="200" kv="10" ctrlrange="-1 1"/></actuator></mujoco>"""
    path = write(folder, robot=robot)
    report = examine(mjcf.read(path), simulate=True)
    assert list(report.diverged) == ["random"]
    finer = report.remedy["random"]
    assert finer in (0.01, 0.004, 0.002)
    path.write_text(robot.replace("0.02", str(finer)))
    assert examine(mjcf.read(path), simulate=True).diverged == {}


def test_a_urdf_file_is_recognised(folder):
    robot = """<robot name="r"><link name="a"/><link name="b"><inertial><mass value="1"/>
    <inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial></link><joint name="j" type="continuous">
    <parent link="a"/><child link="b"/></joint></robot>"""
    sentence = mistake(write(folder, robot=robot))
    assert sentence.startswith(f"{folder}/robot.xml, line 1: it is a URDF file, which has no actuators: convert it by")
    (folder / "robot.urdf").write_text(robot)
    advised = re.search(r"`(.*)`", mistake(folder / "robot.urdf"))[1].replace("robot.urdf", str(folder / "robot.urdf"))
    assert eval(advised, {"mujoco": mujoco}).startswith("<mujoco")


def test_a_mesh_in_a_folder_beside_it_is_named(folder):
    robot = """<mujoco><compiler meshdir="../parts"/><asset>
    <mesh name="part" file="part.stl"/></asset><worldbody><geom type="mesh" mesh="part"/></worldbody></mujoco>"""
    path = write(folder / "model", robot=robot)
    write(folder, parts__part_stl=tetrahedron(1.0))
    assert mistake(path) == (
        f"{folder}/model/robot.xml, line 2: there is no file 'part.stl' in the folder, and "
        f"{folder}/model/../parts/part.stl lies outside: {RULE}"
    )
    assert len(mjcf.read(path, folder).assets) == 1
    assert mjcf.load(path, folder).compile().nmesh == 1
