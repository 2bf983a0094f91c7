"""Examples that hypothesis makes are not timed: a busy machine is no failure."""

import hypothesis

hypothesis.settings.register_profile("rlx", deadline=None)
hypothesis.settings.load_profile("rlx")
