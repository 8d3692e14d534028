//! Writes files as seeds for the target `pieces`: `pack FOLDER FILE…`.

use format_fuzz::pieces::Pieces;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let folder = arguments.next().expect("a folder, then files");
    for file in arguments {
        let packed = Pieces::pack(&std::fs::read(&file)?, 4096);
        let name = Path::new(&file).file_name().expect("a file has a name");
        std::fs::write(Path::new(&folder).join(name), packed)?;
    }
    Ok(())
}
