from parallelix.client.cli import main

main()
