"""What the scripts of detection, segmentation and driving share, around mmengine's Runner.

``arguments`` is the command line; ``config_file``, ``own_data`` and ``data_checks`` make a config
of it that can be trained; ``ranks`` starts the processes; ``safe_loading`` and ``checkpoints`` read
and check weights; ``records``, ``divergence``, ``seeds`` and ``saving`` hold the hooks of a run;
``train`` and ``test`` put all together; ``complexity`` counts.
"""
