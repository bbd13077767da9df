"""The smallest design that tests ask for: one line of text, in two sizes."""

from typing import Any

DESIGN: dict[str, Any] = {
    "version": 1,
    "name": "plain",
    "title": "Plain",
    "background": "#ffffff",
    "sizes": ["300x250", "728x90"],
    "layers": [
        {
            "type": "text",
            "id": "headline",
            "text": "{{ headline }}",
            "size": "20%",
            "box": {"left": "5%", "top": "5%", "right": "5%", "bottom": "5%"},
        }
    ],
}
