import numpy as np
import pytest

from sam2vss.namers.crops import SMALLEST_SIDE, square_crop

GREY = np.array([100, 110, 120], np.uint8)


def picture(height: int = 60, width: int = 80) -> np.ndarray:
    """Red counts columns, green rows."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8)


def box_mask(box: tuple[int, int, int, int], height: int = 60, width: int = 80) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def test_a_square_is_cut_around_the_middle_of_the_box():
    box = (20, 10, 40, 50)  # 20 x 40, middle (30, 30)
    crop = square_crop(picture(), box_mask(box), box, GREY)
    assert np.array_equal(crop, picture()[10:50, 10:50])


def test_margins_grow_the_square_on_every_side():
    box = (30, 20, 50, 40)  # 20 x 20; with margin 0.25 the side is 30
    crop = square_crop(picture(), box_mask(box), box, GREY, margin=0.25)
    assert np.array_equal(crop, picture()[15:45, 25:55])


def test_beyond_the_frame_there_is_the_fill_colour():
    box = (0, 0, 20, 20)  # the square is -10..30
    crop = square_crop(picture(), box_mask(box), box, GREY, margin=0.5)
    assert crop.shape == (40, 40, 3)
    assert np.array_equal(crop[10:, 10:], picture()[:30, :30])
    assert (crop[:10] == GREY).all()
    assert (crop[:, :10] == GREY).all()


def test_a_mask_as_large_as_a_portrait_frame_is_padded_left_and_right():
    frame = picture(90, 30)
    crop = square_crop(frame, np.ones((90, 30), bool), (0, 0, 30, 90), GREY)
    assert crop.shape == (90, 90, 3)
    assert np.array_equal(crop[:, 30:60], frame)
    assert (crop[:, :30] == GREY).all()
    assert (crop[:, 60:] == GREY).all()


@pytest.mark.parametrize("corner", [(0, 0), (79, 59), (40, 30)])
def test_one_pixel_is_shown_with_what_is_around_it(corner):
    x, y = corner
    box = (x, y, x + 1, y + 1)
    crop = square_crop(picture(), box_mask(box), box, GREY, margin=0.25)
    assert crop.shape == (SMALLEST_SIDE, SMALLEST_SIDE, 3)
    assert [x, y, 0] in crop.reshape(-1, 3).tolist()


def test_surroundings_fade_and_the_mask_stays():
    box = (30, 20, 50, 40)
    mask = box_mask(box)
    mask[20:30] = False  # the upper half of the box
    image = np.full((60, 80, 3), 200, np.uint8)
    crop = square_crop(image, mask, box, GREY, fade=0.5)
    assert (crop[10:] == 200).all()
    assert (crop[:10] == [150, 155, 160]).all()  # half of 200 and half of 100, 110, 120
    assert (square_crop(image, mask, box, GREY, fade=1.0)[:10] == GREY).all()
    assert (square_crop(image, mask, box, GREY, fade=0.0) == 200).all()


def test_the_frame_is_not_changed():
    image = picture()
    image.setflags(write=False)
    box = (30, 20, 50, 40)
    square_crop(image, box_mask(box), box, GREY, margin=0.5, fade=1.0)
    assert np.array_equal(image, picture())
