"""What a patch leaves of a network to compute: windows instead of maps, and the stages that compute them.

Boxes that can change (``graph/regions``) → windows (``windows``) of the operators that can run on one
(``local_forms``, ``layouts``) → groups of positions that share window sizes (``grouping``) → what it costs (``cost``) →
stages (``stages``). ``plan`` puts it together. Change-based inference is due to Cavigelli, Degen and Benini 2017 (arXiv
1704.04313); ``docs/decisions/0004-exact-incremental-occlusion.md`` says more.
"""

from __future__ import annotations
