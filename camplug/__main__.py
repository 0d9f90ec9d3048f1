"""`python -m camplug`, and so `torchrun -m camplug`."""

from camplug.cli import main

if __name__ == "__main__":
    main()
