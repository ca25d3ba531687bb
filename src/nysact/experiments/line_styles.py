"""Colours, dashes and markers of curves in every figure."""

# Okabe and Ito's colours, which colour-blind readers can tell apart; the dashes and markers
# serve readers of grey print.
STYLES = (
    ("#0072B2", "--", "o"),
    ("#E69F00", "-.", "s"),
    ("#009E73", "-", "^"),
    ("#CC79A7", ":", "D"),
    ("#56B4E9", "--", "v"),
    ("#D55E00", "-.", "P"),
    ("#000000", "-", "X"),
    ("#0072B2", ":", "<"),
    ("#E69F00", "--", ">"),
    ("#009E73", "-.", "*"),
    ("#CC79A7", "-", "p"),
    ("#D55E00", ":", "h"),
)
# Entries of a legend side by side.
LEGEND_COLUMNS = 6
