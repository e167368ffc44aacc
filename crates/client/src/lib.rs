//! How every loop reaches the door: in process or over HTTPS, shared views, work queues, leases, event recorder.
