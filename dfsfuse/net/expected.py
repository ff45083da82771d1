"""Which replies may answer which request (see the docstrings in `dfs_server.protocol.messages`). Pure.

A reply of another type is the server's mistake and never reaches a caller.
"""

from __future__ import annotations

from typing import Final

from dfs_server.protocol import messages as m

REPLIES: Final[dict[type[m.Request], tuple[type[m.Reply], ...]]] = {
    m.GetStatus: (m.ServerStatus,),
    m.PutPiece: (m.Done,),
    m.GetPiece: (m.Piece,),
    m.GetPieces: (m.SmallPieces,),
    m.GetFindings: (m.Findings,),
    m.HavePieces: (m.Have,),
    m.PutPieces: (m.Done,),
    m.ListPieces: (m.PieceList,),
    m.DropPieces: (m.Have,),
    m.Promise: (m.Promised, m.Refused),
    m.Accept: (m.AcceptedAt, m.Refused, m.Behind, m.Position),
    m.Chosen: (m.Position,),
    m.Learn: (m.Position,),
    m.GetPosition: (m.Position,),
    m.GetBatches: (m.Batches,),
    m.GetChanges: (m.Changes, m.Behind),
    m.ReadKeys: (m.Values, m.Behind),
    m.ReadRange: (m.Items, m.Behind),
    m.BeginCopy: (m.Done,),
    m.CopyItems: (m.Done,),
    m.EndCopy: (m.Position,),
}
