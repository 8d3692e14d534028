//! The store's behaviour, one body for every engine.

mod bodies;
mod things;

use store::{Options, Store};

/// Opens the same store again and again.
#[derive(Clone)]
struct Place {
    options: Options,
}

impl Place {
    async fn open(&self) -> Store {
        Store::open(self.options.clone(), things::env()).await.unwrap()
    }
}

/// Runs each body on SQLite with threads, on SQLite inline, and on PostgreSQL (all bodies on one server, each in a
/// database of its own).
macro_rules! on_every_engine {
    ($($body:ident),* $(,)?) => {
        mod sqlite { $(
            #[tokio::test]
            async fn $body() {
                let dir = tempfile::tempdir().unwrap();
                let options = store::Options::new(format!("sqlite:{}", dir.path().join("store.db").display()));
                crate::bodies::$body(crate::Place { options }).await;
            }
        )* }
        mod inline { $(
            #[tokio::test]
            async fn $body() {
                let dir = tempfile::tempdir().unwrap();
                let options = store::Options::new(format!("sqlite:{}", dir.path().join("store.db").display())).inline();
                crate::bodies::$body(crate::Place { options }).await;
            }
        )* }
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn postgres() {
            let Some(server) = testkit::Postgres::start() else { return };
            let mut failed = Vec::new();
            $(
                let place = Place { options: Options::new(server.database(stringify!($body))) };
                if tokio::spawn(bodies::$body(place)).await.is_err() {
                    failed.push(stringify!($body));
                }
            )*
            assert!(failed.is_empty(), "failed on PostgreSQL: {failed:?}");
        }
    };
}

on_every_engine!(creates_and_finds_again,);
