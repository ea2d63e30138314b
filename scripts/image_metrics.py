"""Golden numbers of pomona-task's picture distances, by scikit-image (pip install scikit-image).

Prints mean absolute difference, PSNR and the SSIM of two planes for the pictures that the test makes by formula.
"""
import numpy as np
from skimage.metrics import structural_similarity

i = np.arange(2 * 20 * 24, dtype=np.float32)
at = lambda k: ((np.sin(i * np.float32(0.37)) + np.cos(i * np.float32(k))) / 2).astype(np.float64).reshape(2, 20, 24)
a, b = at(0.11), at(0.12)
print("l1", np.abs(a - b).mean())
print("psnr", 10 * np.log10(4 / ((a - b) ** 2).mean()))
for x, y in zip(a, b):
    # The mean over windows within the picture: scikit-image crops the border by itself.
    print("ssim", structural_similarity(x, y, data_range=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False))
