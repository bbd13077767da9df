"""Paints the pictures of the sample designs from nothing but arithmetic, so that no picture has an owner.

Run as a script with a folder; the same numbers give the same pictures. Products are ray-marched distance fields
in a photo studio of one plane and two lamps; landscapes are ridges of noise, one behind the other, in haze.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Array = NDArray[Any]
Field = Callable[[Array], Array]
"""Points (n, 3) to their distance from the nearest surface (n,)."""


def rgb(text: str) -> Array:
    """`#rrggbb` as linear light, shape (3,)."""
    return (np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)], np.float32) / 255) ** 2.2


def smoothstep(low: float, high: float, x: Array) -> Array:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def revolve(heights: list[float], radii: list[float], centre: tuple[float, float] = (0, 0)) -> Field:
    """A turned body: radius by height, rounded through a fine interpolation."""
    fine = np.linspace(heights[0], heights[-1], 200)
    curve = np.interp(fine, heights, radii)
    kernel = np.hanning(61) / np.hanning(61).sum()
    for _ in range(2):
        ends = 2 * curve[0] - curve[30:0:-1], 2 * curve[-1] - curve[-2:-32:-1]
        curve = np.convolve(np.concatenate([ends[0], curve, ends[1]]), kernel, mode="valid")

    def distance(p: Array) -> Array:
        radius = np.interp(p[:, 1], fine, curve).astype(np.float32)
        side = (np.hypot(p[:, 0] - centre[0], p[:, 2] - centre[1]) - radius) * 0.75
        cap = np.abs(p[:, 1] - (heights[0] + heights[-1]) / 2) - (heights[-1] - heights[0]) / 2
        outside = np.hypot(np.maximum(side + 0.03, 0), np.maximum(cap + 0.03, 0)) - 0.03
        nearest: Array = np.where((side > -0.03) | (cap > -0.03), outside, np.maximum(side, cap)).astype(np.float32)
        return nearest

    return distance


def sphere(x: float, y: float, z: float, radius: float) -> Field:
    """A ball."""
    return lambda p: np.linalg.norm(p - np.array([x, y, z], np.float32), axis=1) - radius


def torus(x: float, y: float, large: float, small: float) -> Field:
    """A ring standing in the plane of the picture."""

    def distance(p: Array) -> Array:
        flat = np.hypot(p[:, 0] - x, p[:, 1] - y) - large
        return np.hypot(flat, p[:, 2]) - small

    return distance


def march(field: Field, origin: Array, rays: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Walk along unit rays until a surface; gives the distance and whether one was met."""
    travelled = np.full(len(rays), 2.0, np.float32)
    alive = np.arange(len(rays))
    hit = np.zeros(len(rays), bool)
    for _ in range(90):
        step = field(origin + rays[alive] * travelled[alive, None])
        travelled[alive] += step
        near = step < 0.0015
        hit[alive[near]] = True
        alive = alive[~near & (travelled[alive] < 12)]
        if not len(alive):
            break
    return travelled, hit


def normals(field: Field, p: Array) -> Array:
    """Surface directions by central differences."""
    result = np.empty_like(p)
    for axis in range(3):
        step = np.zeros(3, np.float32)
        step[axis] = 0.004
        result[:, axis] = field(p + step) - field(p - step)
    result /= np.linalg.norm(result, axis=1, keepdims=True)
    return result


def shade(field: Field, p: Array, light: Array) -> Array:
    """Soft shadow from a lamp: 0 dark to 1 lit (the narrowest gap along the way decides)."""
    lit = np.ones(len(p), np.float32)
    way = np.full(len(p), 0.04, np.float32)
    toward = light - p
    toward /= np.linalg.norm(toward, axis=1, keepdims=True)
    for _ in range(28):
        gap = field(p + toward * way[:, None])
        lit = np.minimum(lit, 0.5 + 0.5 * gap / (0.16 * way))
        way += np.clip(gap, 0.03, 0.25)
    return smoothstep(0, 1, np.clip(lit, 0, 1))


def occlusion(field: Field, p: Array, n: Array) -> Array:
    """How open the space above a point is: 0 enclosed to 1 free."""
    total = np.zeros(len(p), np.float32)
    for step in (0.04, 0.1, 0.2, 0.36):
        total += (step - field(p + n * step)) * (0.5 / step)
    return np.asarray(np.clip(1 - total * 0.55, 0, 1))


def studio(bodies: list[tuple[Field, str, float]], backdrop: str, glow: int = -1, size: int = 1200) -> Image.Image:
    """Photograph bodies (distance, colour, gloss) on a seamless backdrop; body number `glow` is a lit lampshade."""
    side = size * 3 // 2
    across, down = np.meshgrid(np.linspace(-1, 1, side, dtype=np.float32), np.linspace(1, -1, side, dtype=np.float32))
    origin = np.array([0, 1.15, 5.2], np.float32)
    rays = np.stack([across.ravel() * 0.28, down.ravel() * 0.28 - 0.052, np.full(side * side, -1, np.float32)], axis=1)
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)

    def things(p: Array) -> Array:
        return np.asarray(np.min([body[0](p) for body in bodies], axis=0))

    lamp, fill = np.array([-3.0, 4.6, 3.4], np.float32), np.array([4.0, 2.0, 3.0], np.float32)
    image = backdrop_light(things, origin, rays, across, down, rgb(backdrop), lamp)
    far, hit = march(things, origin, rays)
    p = origin + rays[hit] * far[hit, None]
    n = normals(things, p)
    owner = np.argmin([body[0](p) for body in bodies], axis=0)
    colour = np.stack([rgb(body[1]) for body in bodies])[owner]
    gloss = np.array([body[2] for body in bodies], np.float32)[owner]
    image[hit] = surface(things, p, n, rays[hit], colour, gloss, (lamp, fill), rgb(backdrop))
    if glow >= 0:
        edge = np.abs(np.sum(n * rays[hit], axis=1))[:, None]
        warm = np.array([1.0, 0.72, 0.36], np.float32) * (0.55 + 0.75 * edge)
        image[hit] = np.where((owner == glow)[:, None], warm, image[hit])
    picture = develop(image.reshape(side, side, 3))
    if glow >= 0:
        picture = halo(picture)
    return picture.resize((size, size), Image.Resampling.LANCZOS)


def backdrop_light(
    things: Field, origin: Array, rays: Array, across: Array, down: Array, colour: Array, lamp: Array
) -> Array:
    """The plane that curves up into the wall: one colour, a pool of light, the bodies' shadows."""
    pool = np.exp(-((across.ravel() + 0.15) ** 2 + (down.ravel() + 0.1) ** 2) / 1.3)
    image = colour * (0.62 + 0.62 * pool[:, None])
    floor = rays[:, 1] < -0.02
    reach = -origin[1] / rays[floor, 1]
    p = origin + rays[floor] * reach[:, None]
    fade = smoothstep(7.5, 5.0, reach)[:, None]
    up = np.zeros_like(p)
    up[:, 1] = 1
    dark = 0.45 + 0.55 * shade(things, p, lamp) * (0.35 + 0.65 * occlusion(things, p, up))
    image[floor] *= 1 - fade * (1 - dark[:, None])
    return image


def surface(
    things: Field, p: Array, n: Array, rays: Array, colour: Array, gloss: Array, lamps: tuple[Array, Array], wall: Array
) -> Array:
    """Light on the bodies: key and fill lamp, light from the wall, a soft highlight and a rim."""
    open_sky = occlusion(things, p, n)[:, None]
    total = colour * (0.26 + 0.2 * n[:, 1:2]) * open_sky + wall * colour * 0.4 * open_sky
    for lamp, power in zip(lamps, (1.0, 0.3), strict=True):
        toward = lamp - p
        toward /= np.linalg.norm(toward, axis=1, keepdims=True)
        facing = np.clip((np.sum(n * toward, axis=1) + 0.15) / 1.15, 0, 1)
        lit = shade(things, p + n * 0.02, lamp) if power == 1.0 else np.ones(len(p), np.float32)
        half = toward - rays
        half /= np.linalg.norm(half, axis=1, keepdims=True)
        spot = smoothstep(0.965, 0.995, np.sum(n * half, axis=1)) * gloss * lit
        total += power * (colour * (facing * lit)[:, None] + 0.55 * spot[:, None])
    rim = (1 - np.abs(np.sum(n * rays, axis=1))) ** 4
    total += (wall * 0.5 + 0.12) * (rim * (0.25 + gloss))[:, None]
    return np.asarray(total)


def develop(light: Array, grain: float = 0.006) -> Image.Image:
    """Linear light to an 8-bit picture: a film-like shoulder, a little vignette and grain."""
    height, width = light.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    light = light * (1 - 0.12 * (x * x + y * y)[..., None])
    curve = np.clip(light, 0, None)
    curve = (curve * (2.51 * curve * 0.62 + 0.03)) / (curve * (2.43 * curve * 0.62 + 0.59) + 0.14) * 1.02
    noise = np.random.default_rng(7).normal(0, grain, (height, width, 1))
    return Image.fromarray((np.clip(np.clip(curve, 0, 1) ** (1 / 2.2) + noise, 0, 1) * 255).astype(np.uint8))


def halo(picture: Image.Image) -> Image.Image:
    """Bright parts bleed into their surroundings."""
    pixels = np.asarray(picture, np.float32) / 255
    bright = Image.fromarray((np.clip(pixels - 0.72, 0, 1) * 3.2 * 255).clip(0, 255).astype(np.uint8))
    bloom = sum(np.asarray(bright.filter(ImageFilter.GaussianBlur(r)), np.float32) for r in (20, 60, 140)) / 255
    return Image.fromarray(((1 - (1 - pixels) * (1 - np.clip(bloom * 0.32, 0, 1))) * 255).astype(np.uint8))


def noise2(shape: tuple[int, int], cells: tuple[float, float], seed: int, octaves: int = 6) -> Array:
    """Fractal value noise, 0 to 1, of an image's shape; `cells` down and across for the coarsest octave."""
    random = np.random.default_rng(seed)
    total, weight = np.zeros(shape, np.float32), 0.0
    for octave in range(octaves):
        grid = random.random((int(cells[0] * 2**octave) + 2, int(cells[1] * 2**octave) + 2)).astype(np.float32)
        layer = Image.fromarray(grid).resize(shape[::-1], Image.Resampling.BICUBIC)
        total += np.asarray(layer) * 0.5**octave
        weight += 0.5**octave
    return total / weight


def ridge(width: int, seed: int, cells: float, sharp: float) -> Array:
    """A skyline, 0 to 1 across the width: noise whose creases stand up as peaks."""
    line = noise2((2, width), (0.6, cells), seed, 8 if sharp > 0.3 else 2)[0]
    line = (line - line.min()) / (line.max() - line.min())
    folded = 1 - np.abs(2 * line - 1)
    return np.asarray(sharp * (0.55 * folded**1.5 + 0.45 * line) + (1 - sharp) * line**1.5, np.float32)


def landscape(
    sky: tuple[str, str, str],
    haze: str,
    near: str,
    sun: tuple[float, float, str],
    seed: int,
    water: float,
    sharp: float,
) -> Image.Image:
    """Sky, sun, ridges in haze and, below `water` (share of the height), their mirror image."""
    height, width = 1200, 1600
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    horizon = water if water < 1 else 0.72
    t = np.clip(y / horizon, 0, 1)[..., None]
    light = np.where(t < 0.55, rgb(sky[0]) + (rgb(sky[1]) - rgb(sky[0])) * (t / 0.55), 0)
    light = np.where(t >= 0.55, rgb(sky[1]) + (rgb(sky[2]) - rgb(sky[1])) * ((t - 0.55) / 0.45), light)
    clouds = smoothstep(0.5, 0.78, noise2((height, width), (5, 2), seed + 50))[..., None]
    light = light * (1 - clouds * 0.35) + clouds * rgb(sun[2]) * (0.22 + 0.3 * t)
    distance = np.hypot((x - sun[0]) * width / height, y - sun[1])
    glare = np.exp(-distance * 5.5) * 0.9 + 2.2 * smoothstep(0.05, 0.042, distance)
    light = light + glare[..., None] * rgb(sun[2])
    for index in range(6):
        depth = index / 5
        top = horizon - 0.03 - (0.36 - 0.26 * depth) * ridge(width, seed + index, 1.6 + 1.6 * depth, sharp)
        top += depth**1.5 * (0.1 if water < 1 else 0.42)
        below = y - top[None, :]
        solid = smoothstep(0, 0.0016, below)[..., None]
        colour = rgb(haze) + (rgb(near) - rgb(haze)) * depth**1.1
        rock = colour * relief((height, width), seed + 90 + index, sharp, -1 if sun[0] > 0.5 else 1)
        mist = np.clip(below * 3.4, 0, 1)[..., None] * (1 - depth) * 0.7
        body = rock + (rgb(haze) * 1.06 - rock) * mist
        light = light * (1 - solid) + (body + np.exp(-distance * 4)[..., None] * rgb(sun[2]) * 0.2) * solid
    if water < 1:
        light = mirror(light, water, seed)
    return develop(light.astype(np.float32), 0.008)


def relief(shape: tuple[int, int], seed: int, sharp: float, side: int) -> Array:
    """Light on rough ground, around 1: the slope of noise, creased like rock or soft like sand."""
    ground = noise2(shape, (7, 9) if sharp > 0.3 else (26, 3), seed, 7 if sharp > 0.3 else 3)
    creased = 1 - np.abs(2 * ground - 1)
    ground = sharp * creased + (1 - sharp) * ground
    slope = np.gradient(ground, axis=1) * side + 0.6 * np.gradient(ground, axis=0)
    lit = np.clip(0.95 + slope * (55 + 70 * sharp) + 0.25 * (ground - 0.5), 0.4, 1.75)
    return np.asarray(lit)[..., None]


def mirror(light: Array, water: float, seed: int) -> Array:
    """Replace what is below the waterline by the rippled reflection of what is above."""
    height, width = light.shape[:2]
    line = int(water * height)
    rows = np.arange(height - line)
    ripple = noise2((height - line, width), (90, 5), seed + 7, 4) - 0.5
    strength = (rows / len(rows))[:, None] ** 0.7
    source = np.clip(line - 1 - rows[:, None] * 0.9 - ripple * 120 * strength - 2, 0, line - 1).astype(int)
    shift = np.clip(np.arange(width)[None, :] + ripple * 26 * strength, 0, width - 1).astype(int)
    tint = np.array([0.66, 0.76, 0.84], np.float32) * (0.92 - 0.35 * strength[..., None])
    result = light.copy()
    result[line:] = light[source, shift] * tint + smoothstep(0.22, 0.4, ripple)[..., None] * light[line - 8] * 0.25
    return result


def products() -> dict[str, Callable[[], Image.Image]]:
    """The shop's pictures by name."""
    vase = revolve([0, 0.12, 0.5, 0.95, 1.35, 1.62, 1.75], [0.36, 0.44, 0.66, 0.62, 0.3, 0.2, 0.27])
    stem = revolve([0, 0.08, 0.16, 0.9, 1.05], [0.5, 0.5, 0.2, 0.15, 0.15])
    dome = revolve([1.0, 1.06, 1.25, 1.45, 1.6, 1.68], [0.84, 0.86, 0.78, 0.58, 0.34, 0.08])
    speaker = revolve([0, 0.1, 0.6, 1.15, 1.28, 1.34], [0.56, 0.66, 0.72, 0.66, 0.56, 0.3])
    ring = revolve([1.3, 1.36], [0.4, 0.4])
    mug = revolve([0, 0.1, 0.5, 1.0, 1.06], [0.5, 0.56, 0.58, 0.58, 0.57])
    inside = revolve([1.0, 1.075], [0.5, 0.5])

    def handled(p: Array) -> Array:
        return np.maximum(torus(0.6, 0.55, 0.3, 0.075)(p), 0.5 - p[:, 0])

    return {
        "vase": lambda: studio([(vase, "#c4532d", 0.9), (sphere(0.86, 0.2, 0.42, 0.2), "#e9b44c", 0.3)], "#e8c9a8"),
        "lamp": lambda: studio([(stem, "#d8c7a5", 0.8), (dome, "#ffd9a0", 0.2)], "#2b4a46", glow=1),
        "speaker": lambda: studio([(speaker, "#3d4258", 0.25), (ring, "#f2ede4", 0.9)], "#b9b4e0"),
        "mug": lambda: studio([(mug, "#f3efe6", 0.8), (handled, "#f3efe6", 0.8), (inside, "#4a2c1a", 0.6)], "#7fa99b"),
    }


def places() -> dict[str, Callable[[], Image.Image]]:
    """The travel agency's pictures by name."""
    return {
        "fjord": lambda: landscape(
            ("#2c4a7c", "#c98a8a", "#f7c59f"), "#a58fa8", "#141c2e", (0.66, 0.5, "#ffd9a8"), 11, 0.66, 0.85
        ),
        "dunes": lambda: landscape(
            ("#4d8fc4", "#a9cfe0", "#f6e3c5"), "#e8c8a0", "#a8501c", (0.2, 0.34, "#fff1d0"), 23, 1.0, 0.15
        ),
        "coast": lambda: landscape(
            ("#1f78b4", "#7cc3de", "#e8f4ee"), "#8fb9c4", "#174a3c", (0.75, 0.18, "#fff8e0"), 35, 0.55, 0.55
        ),
    }


def main(folder: Path) -> None:
    """Paint everything into `folder` as JPEG."""
    for name, paint in {**products(), **places()}.items():
        paint().save(folder / f"{name}.jpg", quality=84, optimize=True, progressive=False)
        sys.stdout.write(f"{name} {(folder / f'{name}.jpg').stat().st_size} bytes\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
