"""From documents to programs to the refined corpus: doc stage, chunk stage, and arms made from programs."""
