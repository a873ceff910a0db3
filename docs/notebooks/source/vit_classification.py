# %% [markdown] en
# # A vision transformer, from pixels to answers
#
# What a vision transformer (ViT) does with a picture, one step at a time: it cuts it into **patches**, turns each
# patch into a vector (**embedding**), adds where the patch was (**position**), lets all patches look at each other
# (**attention**), and answers. Then we train one on real drawings and look at what its heads look at.
#
# You need what `make demo` installs, no network, no GPU and about five minutes.

# %% [markdown] es
# # Un transformer de visión, de los píxeles a la respuesta
#
# Qué hace un transformer de visión (ViT) con una imagen, paso a paso: la corta en **parches**, convierte cada
# parche en un vector (su **embedding**), le suma el lugar donde estaba (la **posición**), deja que todos los parches
# se miren entre sí (la **atención**) y responde. Después entrenamos uno con dibujos de verdad y observamos en qué se
# fijan sus cabezas de atención.
#
# Hace falta lo que instala `make demo`; no se necesita ni internet ni GPU, y tarda en total unos cinco minutos. Los
# comentarios del código y lo que imprime están en inglés.

# %%
import os
import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import mirada
from mirada import inspect
from mirada.data.decode import decode
from mirada.data.sources import open_data
from mirada.demo import draw
from mirada.inspect.look import look
from mirada.inspect.pictures import compare_figure, distance_figure, grid_of, heads_figure, position_figure

SHORT = os.environ.get("MIRADA_SHORT") == "1"
STEPS = 5 if SHORT else 700
os.chdir(tempfile.mkdtemp())  # what is drawn is kept there, and nothing beside this notebook
generator = torch.manual_seed(0)

# %% [markdown] en
# ## The data
#
# The drawings are OpenMoji's (CC BY-SA 4.0), nearly two thousand, in nine groups that Unicode gives them: animals,
# food, flags... Each becomes a picture of 48 × 48 pixels. A fifth of them is put aside: nobody trains on it.

# %% [markdown] es
# ## Los datos
#
# Los dibujos son de OpenMoji (CC BY-SA 4.0): casi dos mil, en los nueve grupos que les asigna Unicode (animales,
# comida, banderas...). Cada uno se convierte en una imagen de 48 × 48 píxeles. Apartamos la quinta parte: con ella no
# se entrena.

# %%
draw(Path("drawings"), lambda *_: None)
source = open_data("drawings").splits["all"]
pictures = [decode(source.read(index)).resize((48, 48)) for index in range(len(source))]
model = mirada.load("vit-pico/6(image_size=48)")  # random weights
images = model.prepare(pictures)  # (number, 3, 48, 48), normalised
labels = torch.from_numpy(source.labels)

order = torch.randperm(len(images))
held_out, train = order[: len(order) // 5], order[len(order) // 5 :]
print(len(train), "to train on,", len(held_out), "to measure on;", ", ".join(source.classes))

figure, places = grid_of(12, 0.9, 12)
for axes, index in zip(places, train[:12].tolist(), strict=True):
    axes.imshow(pictures[index])
figure

# %% [markdown] en
# ## Patches
#
# A transformer reads a *sequence*: words of a sentence, or here the patches of a picture, row by row. With patches of
# 6 × 6 pixels our picture is a sentence of 8 × 8 = 64 "words".

# %% [markdown] es
# ## Parches
#
# Un transformer lee una *secuencia*: las palabras de una frase o, en nuestro caso, los parches de una imagen, fila
# por fila. Con parches de 6 × 6 píxeles, nuestra imagen es una frase de 8 × 8 = 64 «palabras».

# %%
image = images[train[3]]  # (3, 48, 48)
patches = image.unfold(1, 6, 6).unfold(2, 6, 6)  # (3, 8, 8, 6, 6): rows and columns of patches
patches = patches.permute(1, 2, 0, 3, 4).reshape(64, 3, 6, 6)

figure, places = grid_of(64, 0.45, 8)
for axes, patch in zip(places, patches, strict=True):
    axes.imshow((patch * 0.5 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy())
figure

# %% [markdown] en
# ## Embeddings
#
# Each patch is 3 × 6 × 6 = 108 numbers. One matrix, the same for every patch, turns them into a vector of 64. That is
# all: the patch embedding of a ViT is a linear layer. In code it is usually written as a convolution whose step is as
# long as its kernel; the cell shows that both are the same thing.

# %% [markdown] es
# ## Embeddings
#
# Cada parche son 3 × 6 × 6 = 108 números. Una matriz, la misma para todos los parches, los convierte en un vector de
# 64. Nada más: el *embedding* de parches de un ViT es una capa lineal. En el código suele escribirse como una
# convolución cuyo paso mide lo mismo que su núcleo; la celda comprueba que ambas cosas son lo mismo.

# %%
backbone = model.backbone
convolution = backbone.stem
matrix, bias = convolution.weight.flatten(1), convolution.bias  # (64, 108) and (64,)
by_hand = patches.flatten(1) @ matrix.T + bias  # (64 patches, 64 numbers)

with torch.no_grad():
    embedded = backbone.embed(image[None])[0].flatten(0, 1)
print("by hand and by convolution the same:", torch.allclose(by_hand, embedded, atol=1e-5))

# %% [markdown] en
# ## Positions
#
# Attention does not know order: mix up the patches, and each gets the same answer as before, only somewhere else. So
# a ViT *adds* a learned vector to each patch that says where it was. Without it, a picture and its jigsaw puzzle are
# one and the same. The cell measures how much the feature of a picture changes when its patches are mixed up. Neither
# network is trained yet, so the change is small; but without positions it is none at all, up to rounding.

# %% [markdown] es
# ## Posiciones
#
# La atención no entiende de orden: si barajamos los parches, cada uno recibe la misma respuesta que antes, solo que
# en otro sitio. Por eso un ViT le *suma* a cada parche un vector aprendido que dice dónde estaba. Sin él, una imagen
# y su rompecabezas serían exactamente lo mismo. La celda mide cuánto cambia la representación de una imagen al
# barajar sus parches. Ninguna de las dos redes está entrenada aún, así que el cambio es pequeño; pero sin posiciones
# no hay cambio alguno, salvo el redondeo.

# %%
mixed = torch.randperm(64)
for positions in ("learned", "none"):
    torch.manual_seed(0)
    network = mirada.load(f"vit-pico/6(image_size=48, positions={positions!r})").backbone
    with torch.no_grad():
        tokens = network.embed(image[None])
        puzzle = tokens.flatten(1, 2)[:, mixed].view_as(tokens)
        change = (network.encode(tokens).pooled - network.encode(puzzle).pooled).norm()
    print(f"positions: {positions:8} the feature changes by {change:.6f}")

# %% [markdown] en
# ## Attention
#
# Each token asks a question (*query*), carries a label (*key*) and a message (*value*). A token's attention to all
# others is a softmax over the products of its query with their keys; what it gets is the mean of their messages,
# weighed by that. Several **heads** do so side by side, each with questions of its own.
#
# A *probe* hands us query, key and value of every layer. The formula by hand, and what the library says:

# %% [markdown] es
# ## Atención
#
# Cada *token* hace una pregunta (*query*), lleva una etiqueta (*key*) y un mensaje (*value*). La atención que un
# token presta a los demás es un softmax de los productos de su pregunta con las etiquetas de ellos; lo que recibe es
# la media de los mensajes, ponderada por esa atención. Varias **cabezas** lo hacen en paralelo, cada una con sus
# propias preguntas.
#
# Una sonda (*probe*) nos entrega query, key y value de cada capa. Aquí está la fórmula a mano, junto a lo que dice la
# biblioteca:

# %%
layers = []
with torch.no_grad():
    backbone(image[None], probe=layers.append)
layer = layers[0]
print("layers:", len(layers), "  query:", tuple(layer.query.shape), "= images, heads, tokens, numbers")

scores = layer.query @ layer.key.transpose(-2, -1) / layer.query.shape[-1] ** 0.5
attention = scores.softmax(-1)  # each row says how one token shares out its attention, and sums to 1
print("the same:", torch.allclose(attention, layer.attention(), atol=1e-6))
print("and its message:", torch.allclose(attention @ layer.value, layer.attended, atol=1e-5))

# %% [markdown] en
# ## Training
#
# On top of the class token's vector sits one linear layer with nine outputs, one for each group. Training is the same
# loop as for any network: a batch, a loss, a step. To get more out of few drawings, each is shifted a little at
# random.

# %% [markdown] es
# ## Entrenamiento
#
# Sobre el vector del *class token* ponemos una capa lineal con nueve salidas, una por grupo. El entrenamiento es el
# mismo bucle que con cualquier red: un lote, una pérdida, un paso. Para sacarles más partido a tan pocos dibujos,
# cada uno se desplaza un poco al azar.

# %%
untrained = look(model, pictures[int(held_out[0])])  # for later
untrained_positions = inspect.position_similarity(backbone)

head = nn.Linear(backbone.dim, len(source.classes))
parameters = [*backbone.parameters(), *head.parameters()]
optimiser = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.05)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=STEPS)
losses = []
backbone.train()
for _ in range(STEPS):
    chosen = train[torch.randint(len(train), (64,))]
    down, right = torch.randint(-5, 6, (2,)).tolist()
    batch = images[chosen].roll((down, right), (2, 3))
    loss = F.cross_entropy(head(backbone(batch).pooled), labels[chosen], label_smoothing=0.1)
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()
    schedule.step()
    losses.append(loss.item())
backbone.eval()

with torch.no_grad():
    found = head(backbone(images[held_out]).pooled).argmax(1)
accuracy = (found == labels[held_out]).float().mean().item()
chance = labels[held_out].bincount().max().item() / len(held_out)
print(f"right on drawings it never saw: {100 * accuracy:.0f}%; always the largest group: {100 * chance:.0f}%")

figure, (axes,) = grid_of(1, 3)
axes.set_axis_on()
axes.plot(losses, linewidth=0.7)
axes.set(xlabel="step", ylabel="loss")
figure

# %% [markdown] en
# ## What it learned about places
#
# Nobody told the network that a picture has rows and columns. Each small map shows how alike the position of one
# patch is to all others. Before training (above) there is nothing to see; afterwards (below) there is an order: places
# at an edge are alike, and so are places in the middle, where the drawings are. Large networks that have seen millions
# of pictures also learn who is a neighbour of whom ([arXiv:2010.11929](https://arxiv.org/abs/2010.11929), figure 7).

# %% [markdown] es
# ## Qué aprendió sobre los lugares
#
# Nadie le dijo a la red que una imagen tiene filas y columnas. Cada mapa pequeño muestra cuánto se parece la posición
# de un parche a todas las demás. Antes de entrenar (arriba) no hay nada que ver; después (abajo) aparece un orden: se
# parecen entre sí los lugares de un mismo borde, y también los del centro, que es donde están los dibujos. Las redes
# grandes que han visto millones de imágenes aprenden además quién es vecino de quién
# ([arXiv:2010.11929](https://arxiv.org/abs/2010.11929), figura 7).

# %%
position_figure(untrained_positions)

# %%
position_figure(inspect.position_similarity(backbone))

# %% [markdown] en
# ## What the heads look at
#
# The attention of the class token, head by head, in the last layer, over a drawing that was not trained on. Above
# each is how far away it looks, in pixels. Layers and heads are counted from 0, as Python counts.

# %% [markdown] es
# ## En qué se fijan las cabezas
#
# La atención del *class token*, cabeza por cabeza, en la última capa, sobre un dibujo que no estaba en el
# entrenamiento. Encima de cada mapa se lee a qué distancia mira, en píxeles. Las capas y las cabezas se cuentan desde
# 0, como cuenta Python.

# %%
seen = look(model, pictures[int(held_out[0])])
heads_figure(seen, layer=-1)

# %%
compare_figure([untrained, seen], ["untrained", "trained"])

# %% [markdown] en
# ## How far they look
#
# A convolution sees its neighbours and no more; a head of attention may look anywhere from the first layer on. Does
# it? Each dot is a head; the dashed line is a head that looks everywhere alike.

# %% [markdown] es
# ## A qué distancia miran
#
# Una convolución solo ve a sus vecinos; una cabeza de atención puede mirar a cualquier parte desde la primera capa.
# ¿Lo hace? Cada punto es una cabeza; la línea discontinua, una cabeza que mirase a todas partes por igual.

# %%
distance_figure([untrained, seen], ["untrained", "trained"])

# %% [markdown] en
# ## To try
#
# 1. Train without positions (`positions='none'`, and without the three lines that draw them). How much is lost? Where?
# 2. Patches of 12 × 12 (where the picture is cut, too: 16 of them). How much faster, how much worse?
# 3. Show `inspect.grad_cam` of a drawing that the network gets wrong. Does it look at the wrong thing?
# 4. The same with `mirada train drawings --recipe demo` and `mirada inspect`: three minutes, and better. Why? (Look
#    at its recipe.)

# %% [markdown] es
# ## Para probar
#
# 1. Entrena sin posiciones (`positions='none'`, y sin las tres líneas que las dibujan). ¿Cuánto se pierde? ¿Dónde?
# 2. Parches de 12 × 12 (también donde se recorta la imagen: son 16). ¿Cuánto más rápido va y cuánto empeora?
# 3. Muestra `inspect.grad_cam` de un dibujo en el que la red se equivoca. ¿Está mirando donde no debe?
# 4. Haz lo mismo con `mirada train drawings --recipe demo` y `mirada inspect`: tres minutos y mejor resultado. ¿Por
#    qué? (Pista: lee la receta.)
