//! A small controller runtime: when a key is worked on, by whom, and how often. Knows neither ECS nor meshes.
