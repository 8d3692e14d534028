//! The store's behaviour, one body for every engine.

mod bodies;
mod crash;
mod lifted;
mod model;
mod past;
mod scopes;
mod side;
mod things;
mod undo;

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
    ($($module:ident::$body:ident),* $(,)?) => {
        mod sqlite { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $body() {
                let dir = tempfile::tempdir().unwrap();
                let options = store::Options::new(format!("sqlite:{}", dir.path().join("store.db").display()));
                crate::$module::$body(crate::Place { options }).await;
            }
        )* }
        mod inline { $(
            #[tokio::test]
            async fn $body() {
                let dir = tempfile::tempdir().unwrap();
                let options = store::Options::new(format!("sqlite:{}", dir.path().join("store.db").display())).inline();
                crate::$module::$body(crate::Place { options }).await;
            }
        )* }
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn postgres() {
            let Some(server) = testkit::Postgres::start() else { return };
            let mut failed = Vec::new();
            $(
                let place = Place { options: Options::new(server.database(stringify!($body))) };
                if tokio::spawn($module::$body(place)).await.is_err() {
                    failed.push(stringify!($body));
                }
            )*
            assert!(failed.is_empty(), "failed on PostgreSQL: {failed:?}");
        }
    };
}

on_every_engine!(
    bodies::creates_and_finds_again,
    bodies::errors_name_what_is_wrong,
    bodies::unchanged_documents_leave_no_trace,
    bodies::unique_keys_pass_from_hand_to_hand,
    bodies::a_stale_revision_is_a_conflict,
    bodies::nul_and_overlong_values_are_refused,
    bodies::secrets_stay_in_the_document,
    bodies::a_dry_run_tells_and_leaves_nothing,
    scopes::a_dry_scope_sees_its_own_changes_and_leaves_nothing,
    scopes::a_dry_scope_goes_on_while_others_write,
    scopes::what_serves_everybody_is_read_outside_the_scope,
    scopes::the_past_cannot_be_written,
    scopes::what_is_written_along_is_one_commit_with_the_change,
    bodies::a_bad_job_leaves_the_others_whole,
    bodies::lists_keep_the_order_of_creation,
    bodies::reopening_changes_nothing,
    bodies::snapshots_never_tear,
    side::charges_stop_at_the_limit,
    side::the_ledger_knows_own_default_and_no_limits,
    side::several_charges_are_all_or_none,
    side::two_hundred_charges_against_fifty,
    side::the_watch_misses_nothing,
    side::another_process_shows_as_lost,
    side::processes_that_write_in_turns_keep_one_count,
    side::a_follower_stays_equal_to_the_store,
    side::kinds_without_history_show_only_in_the_watch,
    side::the_past_is_found_by_time_and_project,
    side::changes_are_cut_at_revisions,
    side::trimming_keeps_what_later_times_need,
    side::leases_pass_when_they_run_out,
    side::what_moved_since_a_revision_is_known_by_name,
    side::status_and_backup,
    lifted::entries_are_rebuilt_for_a_new_index_version,
    lifted::a_rebuild_that_finds_a_clash_changes_nothing,
    undo::what_a_request_deleted_comes_back_exactly,
    undo::a_collision_is_named_and_the_rest_can_come_back,
    undo::what_lacks_its_parent_or_its_quota_stays,
    undo::changes_go_back_field_by_field,
    undo::what_was_made_goes_unless_it_has_changed,
    undo::what_has_gone_since_is_not_given_back_twice,
    undo::that_a_request_was_undone_is_known_as_long_as_its_history,
    undo::what_skips_the_trash_does_not_rest,
    past::a_random_history_equals_its_replay,
    past::what_history_does_not_reach_is_refused_with_its_range,
    past::a_ledger_without_a_history_gets_one,
    model::transactions_and_the_past_equal_a_model,
);
