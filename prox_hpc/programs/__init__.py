"""The program language of prox_hpc: parse, execute, chunk, check, constrain. Pure, without I/O.

A refiner reads every document and writes a small program for it; this room says what such a program may say, what it
does, and guarantees that whatever a model writes costs at most its own chunk. No function here raises on any text.
"""

from prox_hpc.programs.chunk import DEFAULT_CHUNK_TOKENS, Chunk, cut_lines, number_line, number_lines, split_chunks
from prox_hpc.programs.document import (
    ChunkProgram,
    ChunkReport,
    DocumentChecks,
    DocumentResult,
    refine_document,
)
from prox_hpc.programs.edits import Replacement, replacements
from prox_hpc.programs.execute import ChunkResult, Outcome, execute
from prox_hpc.programs.gold import clip, program_from_keep, removed_by_chunks, removed_lines
from prox_hpc.programs.grammar import chunk_grammar, doc_grammar
from prox_hpc.programs.language import (
    DEFAULT_CAPS,
    PROFILES,
    STATUSES,
    VERSION,
    Caps,
    DropDoc,
    KeepChunk,
    KeepDoc,
    Normalize,
    Operation,
    Profile,
    RemoveLines,
    Stage,
    Status,
    operation_name,
    render,
)
from prox_hpc.programs.parse import Program, parse
from prox_hpc.programs.prox_v1 import ProxV1Result, execute_prox_v1

__all__ = [
    "DEFAULT_CAPS",
    "DEFAULT_CHUNK_TOKENS",
    "PROFILES",
    "STATUSES",
    "VERSION",
    "Caps",
    "Chunk",
    "ChunkProgram",
    "ChunkReport",
    "ChunkResult",
    "DocumentChecks",
    "DocumentResult",
    "DropDoc",
    "KeepChunk",
    "KeepDoc",
    "Normalize",
    "Operation",
    "Outcome",
    "Profile",
    "Program",
    "ProxV1Result",
    "RemoveLines",
    "Replacement",
    "Stage",
    "Status",
    "chunk_grammar",
    "clip",
    "cut_lines",
    "doc_grammar",
    "execute",
    "execute_prox_v1",
    "number_line",
    "number_lines",
    "operation_name",
    "parse",
    "program_from_keep",
    "refine_document",
    "removed_by_chunks",
    "removed_lines",
    "render",
    "replacements",
    "split_chunks",
]
