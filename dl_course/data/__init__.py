"""Data: loaders whose order is a function of (seed, epoch), and one module per data set."""

from dl_course.data.augment import Augment
from dl_course.data.images import CIFAR10, MNIST, Digits, FashionMNIST, ImageFolder
from dl_course.data.loader import BatchLoader
from dl_course.data.module import DataModule, Split
from dl_course.data.tabular import CSV, BreastCancer, CarPrices, Diabetes, TwoMoons, car_prices

__all__ = [
    "CIFAR10",
    "CSV",
    "MNIST",
    "Augment",
    "BatchLoader",
    "BreastCancer",
    "CarPrices",
    "DataModule",
    "Diabetes",
    "Digits",
    "FashionMNIST",
    "ImageFolder",
    "Split",
    "TwoMoons",
    "car_prices",
]
