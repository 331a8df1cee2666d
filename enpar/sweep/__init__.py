"""A sweep: many pre-trainings and fine-tunings under Ray Tune, which enpar/tune.py runs."""
