"""Files as rendering reports them, for tests that send such reports themselves."""

from adexport.events import AdGenerated, GeneratedFile


def generated_file(index: int) -> GeneratedFile:
    return GeneratedFile(
        index=index, key=f"key {index}", url="sha256:0", format="jpeg", width=300, height=250, bytes=10,
        sha256="0" * 64, seconds=0.1, quality="quality 90",
    )  # fmt: skip


def generated(export_id: str, *indexes: int) -> AdGenerated:
    files = [generated_file(index) for index in indexes]
    total = sum(file.bytes for file in files)
    return AdGenerated(export_id=export_id, round=1, count=len(files), total_bytes=total, seconds=1, files=files)
