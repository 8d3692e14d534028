//! What a format's headers say beside the size.

/// The facts of a disk image, in the words of `qemu-img info`. Text is printable and short: the file's owner chose it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Facts {
    /// The kind within the format: `monolithicSparse`, `dynamic`, `differencing`; qcow2's `compat` level.
    pub subformat: Option<String>,
    /// Bytes that are allocated at once.
    pub cluster_size: Option<u64>,
    /// How the guest's data are encrypted: `aes`, `luks`.
    pub encryption: Option<String>,
    /// `zlib`, `zstd` or `deflate`: what compressed clusters would be packed with.
    pub compression: Option<String>,
    /// The file that this one is a difference to, as it is named here.
    pub backing_file: Option<String>,
    pub backing_format: Option<String>,
    /// The file that holds the guest's data instead of this one.
    pub data_file: Option<String>,
    /// Files with the guest's data, as a descriptor names them; at most 16 are told.
    pub extents: Vec<String>,
    /// Snapshots inside the file.
    pub snapshots: u32,
    /// It was not closed.
    pub dirty: bool,
    /// A program found it damaged and left a mark.
    pub corrupt: bool,
}
