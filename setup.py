"""Package metadata of rlx. `kernels/` is a source root: it holds the package `rlx_kernels`."""

from pathlib import Path

from setuptools import find_packages, setup

DEPENDENCIES = [
    "array_record>=0.8",
    "chex>=0.1.92",
    "flax>=0.12.8",
    "grain>=0.2.18",
    "jax>=0.10.2",
    "matplotlib>=3.9",
    "ml-collections>=1.0",
    "numpy>=2.0",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.8",
    "rich>=13.0",
    "tensorflow-datasets>=4.9.9",
]
HUGGING_FACE = ["jinja2>=3.1.6", "safetensors>=0.5", "tokenizers>=0.21"]
EXTRAS = {
    "cuda": ["jax[cuda12]"],
    "cuda13": ["jax[cuda13]"],
    "tpu": ["jax[tpu]"],
    "hf": HUGGING_FACE,
    "ray": ["ray>=2.40"],
    "tensorboard": ["tensorboard>=2.18", "tensorboardX>=2.6"],
    "wandb": ["wandb>=0.19"],
    "types": ["pyright[nodejs]==1.1.414"],  # in its own extra: it brings a JavaScript runtime
    "test": [  # the linters are pinned: a new release of theirs must not turn a clone red
        *HUGGING_FACE,
        "hypothesis>=6.100",
        "ipykernel>=6.29",
        "nbclient>=0.10",
        "nbformat>=5.10",
        "pytest>=8.3",
        "pytest-xdist>=3.6",
        "ruff==0.17.6",
    ],
}

setup(
    name="rlx",
    version="0.1.0",
    description="Policy optimisation in JAX: published methods as pure functions, from a config to a table",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[*find_packages(include=["rlx", "rlx.*"]), *find_packages("kernels", include=["rlx_kernels*"])],
    package_dir={"rlx_kernels": "kernels/rlx_kernels"},
    package_data={"rlx": ["py.typed", "**/*.json"], "rlx_kernels": ["py.typed", "**/*.json"]},
    install_requires=DEPENDENCIES,
    extras_require=EXTRAS,
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
