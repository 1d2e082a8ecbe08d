"""Objects that keep their number; with the library, which is an extra."""

from __future__ import annotations

import numpy as np
import pytest

from detect.inference.stream import Tracks
from tests.inference.samples import make_detections, seen, seen_frame

pytest.importorskip("trackers")


def follow(tracks, path, index, rows):
    """(label, left edge, score, track id) of what a frame shows after tracking."""
    found = make_detections([(label, x, 20, x + 30, 60, score) for label, x, score in rows])
    detections = tracks.follow(seen_frame(path, index), found)
    lefts = detections.boxes_xyxy_px[:, 0].round().astype(int).tolist()
    return list(zip(detections.labels.tolist(), lefts, detections.track_ids.tolist(), strict=True))


def test_two_objects_that_pass_each_other_keep_their_numbers():
    """One goes right by 3 px a frame, the other left; the better score, and so the first row, changes in the middle."""
    tracks = Tracks(conf=0.25)
    numbers = {0: set(), 1: set()}
    for index in range(12):
        rows = [(0, 10 + 3 * index, 0.6 + 0.02 * index), (1, 160 - 3 * index, 0.75)]
        rows.sort(key=lambda row: -row[2])
        for label, _, number in follow(tracks, "a.mp4", index, rows):
            numbers[label].add(number)
    # Unknown in the first frame, then the same to the end.
    assert sorted(map(sorted, numbers.values())) == [[-1, 1], [-1, 2]]


def test_a_weak_detection_continues_a_track_and_begins_none():
    tracks = Tracks(conf=0.5)
    assert follow(tracks, "a.mp4", 0, [(0, 10, 0.9)]) == [(0, 10, -1)]
    assert follow(tracks, "a.mp4", 1, [(0, 11, 0.9), (1, 120, 0.3)]) == [(0, 11, 1)]
    assert follow(tracks, "a.mp4", 2, [(1, 120, 0.3), (0, 12, 0.2)]) == [(0, 12, 1)]
    assert follow(tracks, "a.mp4", 3, []) == []
    assert follow(tracks, "a.mp4", 4, [(0, 14, 0.9)]) == [(0, 14, 1)]  # it was away for a frame


def test_numbers_begin_anew_in_each_video():
    tracks = Tracks(conf=0.25)
    for path in ("a.mp4", "b.mp4"):
        ids = [follow(tracks, path, index, [(0, 10, 0.9)])[0][2] for index in range(3)]
        assert ids == [-1, 1, 1]


def test_images_have_no_tracks():
    detections = Tracks(conf=0.25).follow(seen("a.jpg"), make_detections([(0, 1, 2, 9, 9, 0.9), (0, 1, 2, 9, 9, 0.2)]))
    assert detections.track_ids is None
    assert detections.scores.tolist() == pytest.approx([0.9])


def test_skipped_frames_are_steps_of_time():
    """An object that moves 40 px, more than its width, from frame to frame is found where its speed puts it."""
    tracks = Tracks(conf=0.25)
    ids = [follow(tracks, "a.mp4", index, [(0, 10 + 8 * index, 0.9)])[0][2] for index in range(5)]
    # Every fifth frame from here on: 8 px a frame become 40 px.
    ids += [follow(tracks, "a.mp4", index, [(0, 10 + 8 * index, 0.9)])[0][2] for index in (9, 14)]
    assert ids == [-1, 1, 1, 1, 1, 1, 1]


def test_to_supervision_knows_them():
    tracks = Tracks(conf=0.25)
    for index in range(2):
        found = tracks.follow(seen_frame("a.mp4", index), make_detections([(0, 10, 20, 40, 60, 0.9)]))
    assert found.to_supervision().tracker_id.tolist() == [1]
    assert found.track_ids.dtype == np.int64
