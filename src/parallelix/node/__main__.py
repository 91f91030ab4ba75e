from parallelix.node.cli import main

main()
