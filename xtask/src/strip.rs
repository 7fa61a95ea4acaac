//! Takes the debugging information out of the BPF object: the agent carries the object with it, and the kernel reads none of that.

use anyhow::Context as _;
use object::build::elf::{Builder, SectionData};
use object::elf::SHT_STRTAB;

/// The same object without its DWARF. What loader and kernel need of types and source lines stays, in `.BTF` and `.BTF.ext`.
pub(crate) fn without_debugging(object: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut builder = Builder::read(object).context("read the BPF object as an ELF file")?;
    for section in &mut builder.sections {
        let name = section.name.as_slice();
        section.delete = [&b".debug_"[..], b".rel.debug_"].iter().any(|prefix| name.starts_with(prefix));
    }
    builder.delete_orphans();
    // LLVM keeps the names of sections and of symbols in one table; this writer wants two.
    let names = builder.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    builder.write(&mut stripped).context("write the BPF object without debugging information")?;
    Ok(stripped)
}
