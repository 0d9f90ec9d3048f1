"""Web page that explains photographs: what it shows (`service`, `pictures`), and the page itself (`page`)."""
