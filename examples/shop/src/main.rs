//! The example service: orders and checkout, sessions in Redis, and faults on demand.
//!
//! It stands on the standard library alone, so that its image is one static file. A static
//! program can't use the system's name service, so it asks DNS itself ([`dns`]).

mod dns;
mod faults;
mod http;
mod sessions;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::faults::Faults;
use crate::http::{Reply, Request};
use crate::sessions::Sessions;

/// What all requests share.
struct Shop {
    orders: AtomicU64,
    sessions: Sessions,
    faults: Faults,
    name: String,
}

fn main() -> io::Result<()> {
    let setting =
        |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.into());
    let port = setting("PORT", "8080");
    let shop = Arc::new(Shop {
        orders: AtomicU64::new(0),
        sessions: Sessions::new(std::env::var("SESSION_STORE").ok().as_deref()),
        faults: Faults::default(),
        name: setting("OTEL_SERVICE_NAME", &setting("HOSTNAME", "shop")),
    });
    let listener = TcpListener::bind(format!("0.0.0.0:{port}"))?;
    println!(
        "{} listens on port {port}, sessions in {}",
        shop.name,
        shop.sessions.place()
    );
    for stream in listener.incoming() {
        let shop = Arc::clone(&shop);
        let stream = stream?;
        std::thread::spawn(move || {
            if let Err(error) = http::serve(stream, |request| shop.answer(request)) {
                eprintln!("a connection ended: {error}");
            }
        });
    }
    Ok(())
}

impl Shop {
    fn answer(&self, request: &Request) -> Reply {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/health/live") => {
                self.faults.maybe_hang();
                Reply::text(200, "live\n")
            }
            ("GET", "/health/ready") => {
                if self.faults.ready() {
                    Reply::text(200, "ready\n")
                } else {
                    Reply::text(503, "not ready\n")
                }
            }
            ("GET", "/") => self.front(request),
            ("POST", "/orders") => self.order(request),
            ("POST", "/checkout") => self.checkout(request),
            ("POST", path) if path.starts_with("/fault/") => self.faults.set(path, &request.query),
            _ => Reply::text(404, "no such page\n"),
        }
    }

    /// The front page: who answers, and how much is in the cart.
    fn front(&self, request: &Request) -> Reply {
        self.faults.maybe_hang();
        let session = request.session();
        match self.sessions.items(&session) {
            Ok(items) => Reply::json(
                200,
                &format!(
                    "{{\"service\":\"{}\",\"session\":\"{session}\",\"items\":{items}}}\n",
                    self.name
                ),
            ),
            Err(error) => unavailable(&error),
        }
    }

    /// Puts one item into the session's cart.
    fn order(&self, request: &Request) -> Reply {
        self.faults.maybe_hang();
        if self.faults.failing() {
            return Reply::text(500, "told to fail\n");
        }
        let session = request.session();
        match self.sessions.add(&session) {
            Ok(items) => {
                let order = self.orders.fetch_add(1, Ordering::Relaxed) + 1;
                println!("order {order} in session {session}: {items} items");
                Reply::json(
                    201,
                    &format!("{{\"order\":{order},\"session\":\"{session}\",\"items\":{items}}}\n"),
                )
            }
            Err(error) => unavailable(&error),
        }
    }

    /// Empties the cart.
    fn checkout(&self, request: &Request) -> Reply {
        self.faults.maybe_hang();
        if self.faults.failing() {
            return Reply::text(500, "told to fail\n");
        }
        let session = request.session();
        match self.sessions.clear(&session) {
            Ok(items) => {
                println!("checkout in session {session}: {items} items");
                Reply::json(
                    200,
                    &format!("{{\"session\":\"{session}\",\"paid\":{items}}}\n"),
                )
            }
            Err(error) => unavailable(&error),
        }
    }
}

fn unavailable(error: &io::Error) -> Reply {
    eprintln!("the session store does not answer: {error}");
    Reply::text(
        503,
        &format!("the session store does not answer: {error}\n"),
    )
}
