"""Scikit-learn's 1,797 handwritten digits of 8x8 pixels, which come with that package."""

import torch

from nysact.experiments.data.images import Data, ImageSet, standardised


def load_digits() -> Data:
    """Load the digits in a fixed, stratified split: 1,000 for training and 797 for test."""
    # Imported here: it takes more than a second, and only this data needs it.
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    digits = datasets.load_digits()
    whole = ImageSet(
        torch.from_numpy(digits.images).float().unsqueeze(1),
        torch.from_numpy(digits.target).long(),
    )
    parts = train_test_split(
        range(len(whole)), test_size=797, stratify=digits.target, random_state=0
    )
    train, test = (whole.subset(torch.tensor(part)) for part in parts)
    return standardised(train, test, white=16.0)
