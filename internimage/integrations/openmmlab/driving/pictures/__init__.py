"""Pictures of what a driving model sees and says: cameras, maps from above, animations.

- ``content.draw_sample``: what a sample holds, as lines, blocks and boxes in metres;
- ``cameras.draw_cameras``, ``maps.draw_map``: those in the camera views and from above;
- ``board.draw_board``: one frame on one page, the prediction beside the truth;
- ``writer.BoardWriter``: pages as PNG files, scenes as animations.
"""
