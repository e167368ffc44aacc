//! A cluster in a process: server, store, loops and fakes for tests.
