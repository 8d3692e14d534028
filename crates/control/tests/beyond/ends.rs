//! A cloud that is dropped ends whole: nothing holds itself alive.

use crate::cloud::TestCloud;
use base::Env;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// The files below a folder that this process has open.
fn open_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let files = links.filter_map(|link| std::fs::read_link(link.path()).ok());
    files.filter(|file| file.starts_with(folder)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_that_is_dropped_lets_go_of_its_store() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("nubo.db").display());
    let cloud = TestCloud::open(&url, Env::system(), 1).await;
    let image = cloud.image().await;
    let network = json!({"network": {"name": "n"}});
    let made = cloud.call(&cloud.demo, "POST", "/network/v2.0/networks", &network, &[]).await;
    assert_eq!((made.status, image.is_empty()), (201, false));
    let status = cloud.call(&cloud.admin, "GET", "/nubo/v1/status", &Value::Null, &[]).await;
    assert_eq!(status.status, 200, "{}", status.body);
    assert_ne!(open_below(folder.path()), Vec::<std::path::PathBuf>::new());
    drop(cloud);
    for _ in 0..2000 {
        if open_below(folder.path()).is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("still open: {:?}", open_below(folder.path()));
}
