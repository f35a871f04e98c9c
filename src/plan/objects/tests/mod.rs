//! Every drift is found, shown and mended by one run, and what is not ours is left as it is.

mod adoption;
mod drift;
mod removal;
mod world;
